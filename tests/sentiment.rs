//! The sentiment recipe with a model that Transformers itself made, served by a hub on loopback: without a network, the
//! image answers as unmodified Transformers do on the connected side.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;
mod hub;

use fixture::{cache, gapimage, repository, stdout, succeed};
use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

const REPO: &str = "distilbert/distilbert-base-uncased-finetuned-sst-2-english";
const TEXTS: [&str; 4] =
    ["This is a great day!", "What a terrible idea.", "the weather was lovely", "quite something else"];

/// The connected side: a Debian root with PyTorch and unmodified Transformers.
fn connected() -> &'static PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = cache().join("torch");
        succeed(Command::new(repository().join("tests/torch.sh")).arg(&root));
        root
    })
}

/// Runs a Python program of the repository on the connected side; its work is in `/work`.
fn python(script: &str, arguments: &[&str]) -> String {
    let root = connected();
    fs::create_dir_all(root.join("work")).unwrap();
    fs::copy(repository().join(script), root.join("work/script.py")).unwrap();
    let mut command = Command::new("chroot");
    command.arg(root).args(["env", "PYTHONPATH=/opt/site", "MODEL=/work/model", "python3", "/work/script.py"]);
    stdout(&succeed(command.args(arguments)))
}

/// Label and score of each text.
fn answers(printed: &str) -> Vec<(String, f64)> {
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    let answers = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    answers.map(|answer| (answer["label"].as_str().unwrap().to_owned(), answer["score"].as_f64().unwrap())).collect()
}

#[test]
fn the_image_answers_as_unmodified_transformers_do() {
    python("tests/sentiment/make_model.py", &["/work/model"]);
    let expected = answers(&python("recipes/sentiment/classify.py", &TEXTS));
    assert_eq!(expected.len(), TEXTS.len());
    assert_ne!(expected[0].0, expected[1].0, "the labels differ: {expected:?}");

    let hub = hub::Hub::start();
    let model = connected().join("work/model");
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(&model)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    hub.put(REPO, &files);

    let dir = tempfile::tempdir().unwrap();
    let recipes = dir.path().join("recipes");
    succeed(Command::new("cp").arg("-r").arg(repository().join("recipes")).arg(&recipes));
    let keys = fixture::keygen(&dir.path().join("keys"));
    let artifact = dir.path().join("sentiment.gap");
    let build = |offline: bool| {
        let mut command = gapimage();
        command.env("HF_ENDPOINT", &hub.url).arg("build").arg(recipes.join("sentiment.toml")).arg("-o").arg(&artifact);
        command.arg("--trust").arg(&keys.trust);
        succeed(if offline { command.arg("--offline") } else { &mut command })
    };
    let built = stdout(&build(false));
    for test in ["imports", "by-name", "by-path"] {
        assert!(built.contains(&format!("{test} in app: passed")), "{built}");
    }
    let image = format!("{}:app", artifact.display());
    for model in [REPO, "/models/sentiment"] {
        let mut command = gapimage();
        command.args(["run", &image, "--", "env"]).arg(format!("MODEL={model}"));
        let found = answers(&stdout(&succeed(command.args(["python3", "/opt/app/classify.py"]).args(TEXTS))));
        assert_eq!(found.len(), expected.len());
        for ((label, score), (wanted, wanted_score)) in found.iter().zip(&expected) {
            assert_eq!(label, wanted);
            assert!((score - wanted_score).abs() < 1e-5, "{found:?} {expected:?}");
        }
    }
    let before = fs::read(&artifact).unwrap();
    fs::remove_file(&artifact).unwrap();
    build(true);
    assert!(fs::read(&artifact).unwrap() == before, "the same bytes again, without asking anybody");
    succeed(gapimage().arg("sign").arg(&artifact).arg("--key").arg(&keys.key));
    succeed(gapimage().arg("verify").arg(&artifact).arg("--trust").arg(&keys.trust).arg("--full"));
}
