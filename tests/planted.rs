//! Planted defects at the command line: each gives its own named fail, and nothing else fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;
mod hub;
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "model/sample.rs"]
mod sample;

use fixture::{gapimage, letters, stdout, succeed};
use gapimage::{
    lock::{Inputs, Lock, LockedLayer, request},
    recipe::Recipe,
};
use serde_json::Value;
use std::{fmt::Write as _, fs, path::PathBuf, process::Output};
use tempfile::TempDir;

/// Name, version, tags, licence and requirements of each wheel, as an index has them.
type Wheel = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const PURE: &str = "py3-none-any";
const NATIVE: &str = "cp313-cp313-manylinux_2_28_x86_64";
const WHEELS: [Wheel; 17] = [
    ("accelerate", "1.12.0", PURE, "Apache-2.0", &["torch>=2.0.0"]),
    ("bitsandbytes", "0.49.0", PURE, "MIT", &["torch<3,>=2.3"]),
    ("datasets", "4.4.1", PURE, "Apache-2.0", &["numpy>=1.17", "tqdm>=4.66"]),
    ("huggingface-hub", "1.2.3", PURE, "Apache-2.0", &["tqdm>=4.42"]),
    ("numpy", "2.3.5", NATIVE, "BSD-3-Clause", &[]),
    ("nvidia-cuda-runtime-cu12", "12.8.90", PURE, "NVIDIA Proprietary Software", &[]),
    ("nvidia-cudnn-cu12", "9.10.2.21", PURE, "NVIDIA Proprietary Software", &[]),
    ("peft", "0.18.0", PURE, "Apache-2.0", &["accelerate>=0.21.0", "transformers"]),
    ("prometheus-client", "0.23.1", PURE, "Apache-2.0", &[]),
    ("safetensors", "0.7.0", NATIVE, "Apache-2.0", &[]),
    ("tensorboard", "2.20.0", PURE, "Apache-2.0", &["numpy>=1.12.0"]),
    ("tokenizers", "0.22.1", NATIVE, "Apache-2.0", &["huggingface-hub<2.0,>=0.16.4"]),
    ("torch", "2.9.1", NATIVE, "BSD-3-Clause", &["nvidia-cuda-runtime-cu12==12.8.90", "nvidia-cudnn-cu12==9.10.2.21"]),
    ("tqdm", "4.67.1", PURE, "MIT", &[]),
    ("transformers", "5.0.0", PURE, "Apache-2.0", &["tokenizers<=0.23.0,>=0.22.0"]),
    ("typing-extensions", "4.15.0", PURE, "PSF-2.0", &[]),
    ("vllm", "0.14.1", "cp38-abi3-manylinux_2_31_x86_64", "Apache-2.0", &["torch==2.9.1"]),
];

const RECIPE: &str = r#"
[appliance]
name = "finetune"
version = "1.0.0"
serial = 1
arch = "x86_64"
[image.train]
layers = ["site", "python"]
models = ["base"]
[layer.site]
files = [{ path = "site", to = "/srv" }]
[layer.python]
wheels = { requirements = ["transformers"] }
[model.base]
path = "base"
[target]
gpu = "H100-80GB"
count = 8
driver = "570.124.06"
memory = "512GiB"
disk = "2TB"
[job.sft]
image = "train"
run = ["torchrun", "/srv/train.py"]
configs = ["sft.yaml"]
gpus = 1
[job.sft.train]
model = "base"
method = "lora"
rank = 16
length = 32
batch = 4
accumulate = 8
precision = "bf16"
trainer = "transformers"
[job.chat]
image = "train"
gpus = 1
serve = { model = "base", engine = "vllm", length = 64, concurrency = 4 }
[licenses]
allow = ["Apache-2.0", "MIT", "BSD-3-Clause", "PSF-2.0", "LicenseRef-NVIDIA-Proprietary"]
[acceptance]
metrics = ["accuracy"]
baselines = ["base model"]
criteria = ["accuracy >= 0.9"]
"#;

const CONFIG: &str = "learning_rate: 1e-4\neval_strategy: steps\nreport_to: tensorboard\n";

/// An appliance with everything that a check looks at, before and after something is planted.
struct Appliance {
    recipe: String,
    config: String,
    wheels: Vec<(String, String, String, String, Vec<String>)>,
    model: Vec<(&'static str, Vec<u8>)>,
    site: Vec<(&'static str, String)>,
}

impl Appliance {
    fn good() -> Self {
        let wheels = WHEELS.iter().map(|(name, version, tags, license, requires)| {
            let requires = requires.iter().map(|text| (*text).to_owned()).collect();
            ((*name).to_owned(), (*version).to_owned(), (*tags).to_owned(), (*license).to_owned(), requires)
        });
        Self {
            recipe: RECIPE.to_owned(),
            config: CONFIG.to_owned(),
            wheels: wheels.collect(),
            model: sample::files(),
            site: vec![("motd", "hello\n".to_owned())],
        }
    }

    #[track_caller]
    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.recipe.contains(from), "{from}");
        self.recipe = self.recipe.replace(from, to);
    }

    fn without(&mut self, wheel: &str) {
        self.wheels.retain(|(name, ..)| name != wheel);
    }

    fn wheel(&mut self, name: &str, change: impl FnOnce(&mut (String, String, String, String, Vec<String>))) {
        change(self.wheels.iter_mut().find(|(other, ..)| other == name).unwrap());
    }

    /// The rows of the lock for the wheels.
    fn rows(&self) -> String {
        let mut rows = "python = \"3.13.5\"\nglibc = \"2.41\"\n".to_owned();
        for (name, version, tags, license, requires) in &self.wheels {
            let (file, zero) = (name.replace('-', "_"), "0".repeat(64));
            writeln!(
                rows,
                "[[wheel]]\nname = \"{name}\"\nversion = \"{version}\"\nfile = \"{file}-{version}-{tags}.whl\"\n\
                 size = 1\ninstalled-size = 1\nsha256 = \"sha256:{zero}\"\nlicenses = [\"{license}\"]\n\
                 requires = {requires:?}"
            )
            .unwrap();
        }
        rows
    }

    /// Writes it down, locks what needs no index, and adds the rows that an index would have given.
    fn written(&self) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let write = |path: PathBuf, data: &[u8]| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        };
        write(dir.path().join("sft.yaml"), self.config.as_bytes());
        self.model.iter().for_each(|(name, data)| write(dir.path().join("base").join(name), data));
        self.site.iter().for_each(|(name, text)| write(dir.path().join("site").join(name), text.as_bytes()));
        let recipe = dir.path().join("recipe.toml");
        let without = self.recipe.replace(", \"python\"]", "]").replace("[layer.python]\n", "");
        let without = without.replace("wheels = { requirements = [\"transformers\"] }\n", "");
        fs::write(&recipe, without).unwrap();
        succeed(gapimage().arg("lock").arg(&recipe));
        fs::write(&recipe, &self.recipe).unwrap();
        let mut lock = Lock::load(&Lock::path_for(&recipe)).unwrap().unwrap();
        let read = Recipe::load(&recipe).unwrap();
        for place in read.placed_layers() {
            if place.layer.name == "python" {
                lock.layers.push(LockedLayer {
                    name: place.layer.name.clone(),
                    below: place.below.iter().map(|name| (*name).to_owned()).collect(),
                    request: request(&place, read.appliance.arch),
                    inputs: Inputs::Wheels(toml::from_str(&self.rows()).unwrap()),
                });
            }
        }
        lock.save(&Lock::path_for(&recipe)).unwrap();
        (dir, recipe)
    }

    fn checked(&self) -> Output {
        let (_dir, recipe) = self.written();
        gapimage().arg("check").arg(recipe).arg("--json").output().unwrap()
    }
}

/// What came out so, as `rule subject: reason`.
fn lines(output: &Output, status: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(&stdout(output)).unwrap();
    let lines = report["lines"].as_array().unwrap().iter().filter(|line| line["status"] == status);
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    lines.map(|line| format!("{} {}: {}", text(line, "rule"), text(line, "subject"), text(line, "reason"))).collect()
}

#[test]
fn nothing_fails_where_nothing_is_planted() {
    let output = Appliance::good().checked();
    assert_eq!(output.status.code(), Some(0), "{:#?}", lines(&output, "fail"));
    // What is not built cannot be looked through; everything else is known.
    let unresolved = lines(&output, "unresolved");
    assert!(unresolved.iter().all(|line| line.starts_with("secrets layer ")), "{unresolved:#?}");
}

type Plant = fn(&mut Appliance);

/// What is planted, and how the one line that fails begins.
const DEFECTS: [(Plant, &str); 30] = [
    (
        |it| it.replace("570.124.06", "520.61.05"),
        "driver image train: `torch` is built for CUDA 12.8, which needs driver 525 or newer",
    ),
    (
        |it| {
            it.replace("H100-80GB", "B200");
            it.replace("570.124.06", "550.54.14");
        },
        "driver -: driver 550.54.14 (by `[target]`) is older than 570.26, the first that knows Blackwell",
    ),
    (|it| it.without("accelerate"), "training-stack image train: `accelerate` is not there"),
    (
        |it| it.wheel("peft", |wheel| wheel.1 = "0.17.1".to_owned()),
        "training-stack image train: `peft` is 0.17.1, and peft>=0.18.0 is needed",
    ),
    (|it| it.without("tqdm"), "training-stack image train: `tqdm` is not there"),
    (
        |it| it.wheel("datasets", |wheel| wheel.4.push("pyarrow>=21".to_owned())),
        "dependencies image train: `pyarrow` is not there (required by datasets)",
    ),
    (
        |it| it.wheel("tqdm", |wheel| wheel.3 = "AGPL-3.0-only".to_owned()),
        "licences image train: AGPL-3.0-only is not allowed: tqdm",
    ),
    (|it| card(it, "license: llama3.1"), "licences model base: LicenseRef-llama3.1 is not allowed"),
    (|it| card(it, "license: cc-by-nc-4.0"), "licences model base: CC-BY-NC-4.0 is not allowed"),
    (|it| it.replace("batch = 4", "batch = 10000000"), "gpu-memory job sft: it does not fit: "),
    (|it| it.replace("concurrency = 4", "concurrency = 100000000"), "gpu-memory job chat: it does not fit: "),
    (
        |it| it.replace("gpus = 1\n[job.sft.train]", "gpus = 16\n[job.sft.train]"),
        "gpu-memory job sft: it takes 16 GPUs, and each node has 8",
    ),
    (
        |it| it.site.push(("token", format!("{}{}", "hf_", letters(34)))),
        "secrets layer site: /srv/token:1 looks like a Hugging Face token",
    ),
    (
        |it| it.site.push(("key.pem", format!("-----BEGIN {} KEY-----\n{}\n", "PRIVATE", letters(64)))),
        "secrets layer site: /srv/key.pem:1 looks like a private key",
    ),
    (
        |it| it.site.push(("deploy.env", "DB_PASSWORD=qwertzuiop\n".to_owned())),
        "secrets layer site: /srv/deploy.env:1 looks like a credential of an environment",
    ),
    (
        |it| {
            it.replace(
                "models = [\"base\"]",
                "models = [\"base\"]\nconfig = { env = { WANDB_API_KEY = \"qwertzuiop\" } }",
            )
        },
        "secrets image train: the variable `WANDB_API_KEY` of its environment looks like a credential",
    ),
    (
        |it| it.config += "load_best_model_at_end: true\nsave_strategy: steps\n",
        "configuration job sft, sft.yaml: `load_best_model_at_end` without `metric_for_best_model`",
    ),
    (|it| it.config += "device_map: meta\n", "configuration job sft, sft.yaml: `device_map: meta` loads no weights"),
    (|it| it.config += "fp16: true\nbf16: true\n", "configuration job sft, sft.yaml: `fp16` and `bf16` are both on"),
    (|it| it.config = "a: [".to_owned(), "configuration job sft, sft.yaml: this is not YAML"),
    (
        |it| it.replace("H100-80GB", "T4"),
        "precision job sft: `precision = \"bf16\"` needs compute capability 8.0 or newer, and the T4 has 7.5 (Turing)",
    ),
    (
        |it| it.replace("precision = \"bf16\"", "precision = \"bf16\"\nsharding = \"fsdp\""),
        "distributed job sft: `sharding = \"fsdp\"` needs a configuration",
    ),
    (
        |it| it.without("nvidia-cudnn-cu12"),
        "cuda-libraries image train: torch 2.9.1 takes cuDNN from a wheel that is not there",
    ),
    (
        |it| it.wheel("vllm", |wheel| (wheel.1, wheel.4) = ("0.33.0".to_owned(), Vec::new())),
        "cuda-libraries image train: vllm 0.33.0 is built for CUDA 13.x, and torch 2.9.1 beside it for CUDA 12.8",
    ),
    (
        |it| it.wheel("torch", |wheel| wheel.1 = "2.9.1+cpu".to_owned()),
        "gpu-architecture image train: torch 2.9.1+cpu does not compute on NVIDIA GPUs",
    ),
    (
        |it| it.wheel("numpy", |wheel| wheel.2 = "cp313-cp313-manylinux_2_42_x86_64".to_owned()),
        "platform-tags image train: `numpy` 2.3.5: it needs glibc 2.42, and the image has 2.41",
    ),
    (|it| it.without("vllm"), "serving job chat: it serves with `vllm`, which is not in the image"),
    (|it| it.replace("length = 64", "length = 65"), "serving job chat: `length = 65` is longer than the 64 tokens"),
    (
        |it| it.config = it.config.replace("tensorboard", "wandb"),
        "tracking job sft: it reports to `wandb`, which is not in the image",
    ),
    (|it| it.config += "push_to_hub: true\n", "offline job sft, sft.yaml: `push_to_hub` uploads to a hub"),
];

/// Gives the model's card another head.
fn card(it: &mut Appliance, license: &str) {
    let file = it.model.iter_mut().find(|(name, _)| *name == "README.md").unwrap();
    file.1 = format!("---\n{license}\n---\n# Tiny\n").into_bytes();
}

#[test]
fn each_planted_defect_gives_its_own_fail_and_nothing_else_fails() {
    let mut wrong = Vec::new();
    for (plant, expected) in DEFECTS {
        let mut appliance = Appliance::good();
        plant(&mut appliance);
        let output = appliance.checked();
        let fails = lines(&output, "fail");
        if output.status.code() != Some(4) || !matches!(fails.as_slice(), [one] if one.starts_with(expected)) {
            wrong.push((expected, fails));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
