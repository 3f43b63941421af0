//! What Python's own libraries find in an image: the model by its name and by its path, without a network.

use crate::{
    build::{build, project, unpack},
    fixture::{cache, repository, stdout, succeed},
    hub::Hub,
    sample,
};
use std::{path::PathBuf, process::Command, sync::OnceLock};

/// A Python with the libraries of Hugging Face, made once.
fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let dir = cache().join("huggingface");
        succeed(Command::new(repository().join("tests/huggingface.sh")).arg(&dir));
        dir.join("bin/python")
    });
    made.clone()
}

/// Python in a namespace with no network, with this cache.
fn without_network(hub_cache: &std::path::Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net"]).arg(python()).args(["-c", script]);
    command.env("HF_HUB_CACHE", hub_cache).env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command.env_remove("HF_ENDPOINT");
    command
}

#[test]
fn from_pretrained_finds_the_model_by_its_name_and_by_its_path() {
    let (project, hub) = project("[model.tiny]\nhub = \"org/tiny\"\n", &sample::files());
    succeed(&mut build(&project, &hub));
    let root = unpack(&project.path().join("a.gap"), "tiny", project.path());
    let script = "
import sys
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer
plain = sys.argv[1]
for name in ('org/tiny', plain):
    print(AutoConfig.from_pretrained(name).hidden_size, AutoTokenizer.from_pretrained(name)('hello world').input_ids)
path = snapshot_download('org/tiny')
print(Tokenizer.from_file(path + '/tokenizer.json').encode('world').ids)
shard = hf_hub_download('org/tiny', 'model-00001-of-00002.safetensors')
print(sorted(safe_open(shard, 'np').keys())[0])
";
    let hub_cache = root.join("models/hub");
    let output = succeed(without_network(&hub_cache, script).arg(root.join("models/tiny")));
    assert_eq!(stdout(&output), "8 [1, 2]\n8 [1, 2]\n[2]\nmodel.embed_tokens.weight\n");
}

#[test]
fn the_loopback_hub_is_one_to_hugging_faces_own_client() {
    let hub = Hub::start();
    let commit = sample::put(&hub, "org/tiny", &sample::files());
    let dir = tempfile::tempdir().unwrap();
    let script = "from huggingface_hub import snapshot_download; print(snapshot_download('org/tiny'))";
    let mut command = Command::new(python());
    command.args(["-c", script]).env("HF_ENDPOINT", &hub.url).env("HF_HOME", dir.path()).env("HF_HUB_DISABLE_XET", "1");
    command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").env("HF_HUB_DISABLE_TELEMETRY", "1");
    let path = stdout(&succeed(&mut command)).trim().to_owned();
    assert!(path.ends_with(&commit.to_string()), "{path}");
    for (name, data) in sample::files() {
        assert_eq!(std::fs::read(format!("{path}/{name}")).unwrap(), data, "{name}");
    }
}
