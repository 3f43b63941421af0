//! A directory with a model, data and a job, and the program run on it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use candle_core::{DType, Device};
use gap_lm::{
    inference::{Adapter, Allocation, Decoder, DecoderConfig, KvCache, Loader, Piece, SafetensorsDirectory},
    training::{AdapterShape, Holding, Key, Maxima, TARGETS, TrainableDecoder, Trained},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_gap-train");

/// A place for jobs.
pub struct Trial {
    pub dir: tempfile::TempDir,
}

impl Trial {
    /// With questions and answers that a tiny model can learn, and such a model.
    pub fn new(arch: &str) -> Self {
        let trial = Self { dir: tempfile::tempdir().unwrap() };
        let rows = |from: usize, to: usize| {
            let row = |index: usize| {
                json!({"messages": [
                    {"role": "user", "content": format!("What follows {index}?")},
                    {"role": "assistant", "content": format!("After {index} comes {}.", index + 1)},
                ]})
            };
            (from..to).map(|index| row(index).to_string() + "\n").collect::<String>()
        };
        fs::write(trial.path("train.jsonl"), rows(0, 40)).unwrap();
        fs::write(trial.path("valid.jsonl"), rows(40, 48)).unwrap();
        let mut init = Command::new(PROGRAM);
        init.args(["init", "model", "--arch", arch, "--hidden", "32", "--vocab", "300", "--context", "128"]);
        succeed(init.args(["--vocab-from", "train.jsonl"]).current_dir(trial.dir.path()));
        trial
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `NAME.json`, a job with the output `NAME`.
    pub fn job(&self, name: &str, more: Value) -> PathBuf {
        let mut job = json!({
            "model": "model", "training_file": "train.jsonl", "output": name, "max_steps": 8, "batch_size": 4,
            "learning_rate": 1e-2, "lora": {"r": 4, "dropout": 0.1},
        });
        for (field, value) in more.as_object().unwrap() {
            if value.is_null() {
                job.as_object_mut().unwrap().remove(field);
            } else {
                job[field] = value.clone();
            }
        }
        let path = self.path(&format!("{name}.json"));
        fs::write(&path, job.to_string()).unwrap();
        path
    }

    pub fn command(&self, job: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg(job).args(more);
        command
    }

    pub fn start(&self, job: &Path, more: &[&str]) -> Child {
        self.command(job, more).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn run(&self, job: &Path, more: &[&str]) -> Output {
        self.command(job, more).output().unwrap()
    }

    pub fn succeed(&self, job: &Path, more: &[&str]) {
        succeed(&mut self.command(job, more));
    }

    pub fn metrics(&self, name: &str) -> Vec<Value> {
        rows(&self.path(name).join("metrics.jsonl"))
    }

    pub fn losses(&self, name: &str) -> Vec<f64> {
        self.metrics(name).iter().map(|row| row["train_loss"].as_f64().unwrap()).collect()
    }

    pub fn events(&self, name: &str) -> Vec<Value> {
        rows(&self.path(name).join("events.jsonl"))
    }

    /// The failure in the last event.
    pub fn failure(&self, name: &str) -> Value {
        self.events(name).pop().unwrap()["error"].clone()
    }
}

pub fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Logits of tokens by the model in `model`, with the adapter of rank 4 and some scale in `adapter`.
pub fn logits(model: &Path, adapter: Option<(&Path, f64)>, tokens: &[u32], dtype: DType) -> Vec<f64> {
    let trained = match adapter {
        None => Trained::All,
        Some((_, scale)) => {
            let key = Key::new(0);
            Trained::Adapter(AdapterShape { rank: 4, scale, dropout: 0.0, targets: TARGETS.to_vec(), key })
        }
    };
    let mut decoder = decoder(model, &trained, dtype, None);
    if let Some((dir, _)) = adapter {
        decoder.take_adapter(dir).unwrap();
    }
    logits_of(&mut decoder, tokens)
}

/// Logits of tokens by the model in `model` with the adapter in `adapter`, as serving loads and computes them.
pub fn serving_logits(model: &Path, adapter: &Path, tokens: &[u32]) -> Vec<f64> {
    let source = SafetensorsDirectory::open(model).unwrap();
    let loader = Loader { source: &source, precision: None, device: &Device::Cpu };
    let decoder = Decoder::load(DecoderConfig::read(model).unwrap(), loader).unwrap();
    let adapter = Adapter::load(adapter, decoder.config(), &Device::Cpu).unwrap();
    let mut cache = KvCache::new(decoder.config(), tokens.len(), &Device::Cpu).unwrap();
    let mut cached = Allocation::default();
    assert!(cache.reserve(&mut cached, tokens.len()));
    let piece = Piece { tokens, start: 0, cached: &cached, adapter: Some(&adapter), logits: tokens.len() };
    let logits = decoder.forward(&cache, &[piece]).unwrap();
    logits.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Logits of tokens by the model in `model` with its layers in four bits.
pub fn quantised_logits(model: &Path, maxima: Maxima, tokens: &[u32], dtype: DType) -> Vec<f64> {
    let (targets, key) = (TARGETS.to_vec(), Key::new(0));
    let trained = Trained::Adapter(AdapterShape { rank: 4, scale: 1.0, dropout: 0.0, targets, key });
    logits_of(&mut decoder(model, &trained, dtype, Some(maxima)), tokens)
}

fn decoder(model: &Path, trained: &Trained, dtype: DType, nf4: Option<Maxima>) -> TrainableDecoder {
    let holding = Holding { device: Device::Cpu, weights: dtype, activations: dtype, nf4, checkpointing: false };
    let source = SafetensorsDirectory::open(model).unwrap();
    TrainableDecoder::load(&source, DecoderConfig::read(model).unwrap(), trained, holding).unwrap()
}

fn logits_of(decoder: &mut TrainableDecoder, tokens: &[u32]) -> Vec<f64> {
    let logits = decoder.logits(tokens).unwrap();
    logits.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Waits until something is so.
pub fn wait_for(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing happened for a minute");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a program.
pub fn signal(child: &Child, name: &str) {
    succeed(Command::new("kill").args([name, &child.id().to_string()]));
}

/// Writes a file anew, with other bytes.
pub fn change(path: &Path, with: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    fs::write(path, with(fs::read(path).unwrap())).unwrap();
}
