//! What only Python itself can say: that unmodified PEFT takes our adapters, and that the numbers of `parity/fixture` are
//! still what PyTorch gives. Needs the Debian root of `tests/peft.sh`; `make test-all` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use trial::Trial;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The root, with `make.py` in a directory of its own.
fn root() -> PathBuf {
    let cache = env::var_os("GAPIMAGE_TEST_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from);
    let root = cache.join("torch");
    trial::succeed(Command::new(repository().join("tests/peft.sh")).arg(&root));
    fs::create_dir_all(root.join("work/parity")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/make.py");
    fs::copy(script, root.join("work/parity/make.py")).unwrap();
    root
}

fn python(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("chroot");
    command.arg(root).args([
        "env",
        "PYTHONPATH=/opt/site:/opt/peft",
        "HF_HUB_OFFLINE=1",
        "python3",
        "/work/parity/make.py",
    ]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Libraries say things of their own there; the answer is the last line.
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
#[ignore = "needs PyTorch; `make test-all` runs it"]
fn peft_takes_our_adapters_and_the_recorded_numbers_hold() {
    let root = root();
    python(&root, &["/work/parity/again"]);
    let again: Value =
        serde_json::from_str(&fs::read_to_string(root.join("work/parity/again/reference.json")).unwrap()).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixture/reference.json");
    let recorded: Value = serde_json::from_str(&fs::read_to_string(fixture).unwrap()).unwrap();
    for (again, recorded) in again["cases"].as_array().unwrap().iter().zip(recorded["cases"].as_array().unwrap()) {
        for (a, b) in numbers(&again["losses"]).iter().zip(numbers(&recorded["losses"])) {
            assert!((a - b).abs() < 1e-4, "{}", recorded["family"]);
        }
    }
    for part in ["base", "adapters"] {
        for (name, logits) in recorded[part].as_object().unwrap() {
            for (a, b) in numbers(&again[part][name]).iter().zip(numbers(logits)) {
                assert!((a - b).abs() < 1e-4, "{name}");
            }
        }
    }
    for arch in ["llama", "mistral", "qwen2", "qwen3"] {
        let trial = Trial::new(arch);
        trial.succeed(&trial.job("out", json!({"lora": {"r": 4, "use_rslora": arch == "qwen2"}})), &[]);
        let place = root.join("work/parity").join(arch);
        copy(&trial.path("model"), &place.join("model"));
        copy(&trial.path("out/adapter"), &place.join("adapter"));
        let [model, adapter] = ["model", "adapter"].map(|name| format!("/work/parity/{arch}/{name}"));
        let theirs: Value = serde_json::from_str(&python(&root, &["-", "--logits", &model, &adapter])).unwrap();
        let scale = if arch == "qwen2" { 8.0 } else { 4.0 };
        let probe: Vec<u32> = numbers(&recorded["probe"]).into_iter().map(|token| token as u32).collect();
        let ours = trial::logits(
            &trial.path("model"),
            Some((&trial.path("out/adapter"), scale)),
            &probe,
            candle_core::DType::F32,
        );
        for (a, b) in ours.iter().zip(numbers(&theirs)) {
            assert!((a - b).abs() < 1e-4, "{arch}: {a} {b}");
        }
    }
}
