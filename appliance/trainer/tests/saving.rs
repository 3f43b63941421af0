//! What saving costs: memory, and room on the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use candle_core::{DType, Device, Tensor};
use gap_contract::{Job, JobSpec, Output};
use gap_lm::{
    inference::{DecoderConfig, SafetensorsDirectory},
    training::{Holding, TrainableDecoder, Trained},
};
use gap_train::{
    checkpoint::{self, State},
    disk::Leaves,
    optimizer::{AdamW, Moments},
    result,
    tensors::{self, Tensors},
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    env, fs,
    process::{Command, Output as Said},
};
use trial::Trial;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).unwrap()
}

#[test]
fn the_bytes_of_tensors_are_those_of_the_formats_own_library() {
    let tensors = Tensors::from([
        ("second.b".to_owned(), random(&[3, 5])),
        // One that is written in several pieces.
        ("first.b".to_owned(), random(&[200_003, 3])),
        ("a".to_owned(), random(&[7])),
        // One that does not lie as it is written.
        ("turned".to_owned(), random(&[4, 6]).t().unwrap()),
    ]);
    let bytes = |tensor: &Tensor| -> Vec<u8> {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let bytes: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor.dims().to_vec(), bytes(tensor))).collect();
    for notes in [HashMap::new(), HashMap::from([("format".to_owned(), "pt".to_owned())])] {
        let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        let views = bytes.iter().map(|(name, shape, bytes)| (*name, view(shape, bytes)));
        let theirs = safetensors::serialize(views, Some(notes.clone())).unwrap();
        let mut ours = Vec::new();
        tensors::write(&tensors, notes.clone(), &mut ours).unwrap();
        assert!(ours == theirs);
        assert_eq!(tensors::size(&tensors, notes).unwrap(), theirs.len() as u64);
    }
}

#[test]
fn values_that_are_no_numbers_are_not_saved() {
    let wrong = Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap();
    let tensors = Tensors::from([("a".to_owned(), random(&[2])), ("b".to_owned(), wrong)]);
    let found = tensors::write(&tensors, HashMap::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(found.to_string(), "`b` has values that are no numbers");
}

fn job(more: Value) -> Job {
    let mut spec = json!({"model": "m", "training_file": "t", "output": "o", "max_steps": 100});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    JobSpec::parse(spec.to_string().as_bytes()).unwrap().check().unwrap()
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// In a process of its own: the other tests would be measured with it.
#[test]
fn saving_all_weights_takes_no_second_copy_of_them() {
    let mut alone = Command::new(env::current_exe().unwrap());
    alone.args(["--ignored", "--exact", "alone_saving_all_weights_takes_no_second_copy_of_them"]);
    let said = alone.output().unwrap();
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("1 passed"), "{said:?}");
}

#[test]
#[ignore = "measures its process, started by saving_all_weights_takes_no_second_copy_of_them"]
fn alone_saving_all_weights_takes_no_second_copy_of_them() {
    let trial = Trial { dir: tempfile::tempdir().unwrap() };
    fs::write(trial.path("texts.jsonl"), "{\"text\": \"What follows 1?\"}\n").unwrap();
    let mut init = Command::new(trial::PROGRAM);
    init.args(["init", "model", "--hidden", "512", "--layers", "4", "--intermediate", "1536", "--vocab", "300"]);
    trial::succeed(init.args(["--vocab-from", "texts.jsonl"]).current_dir(trial.dir.path()));
    let model = trial.path("model");
    let holding =
        Holding { device: Device::Cpu, weights: DType::F32, activations: DType::F32, nf4: None, checkpointing: false };
    let source = SafetensorsDirectory::open(&model).unwrap();
    let config = DecoderConfig::read(&model).unwrap();
    let mut decoder = TrainableDecoder::load(&source, config, &Trained::All, holding).unwrap();
    let (mut optimizer, mut largest) = (AdamW::default(), 0);
    decoder.visit(|parameter| {
        let moment = || Tensor::ones(parameter.value().shape(), DType::F32, &Device::Cpu).unwrap();
        optimizer.restore(parameter.name(), Moments { first: moment(), second: moment() });
        largest = largest.max(parameter.value().elem_count() as u64 * 4);
    });
    let (parameters, _) = decoder.sizes();
    let output = Output::new(trial.path("out"));
    fs::create_dir_all(output.checkpoints()).unwrap();
    let job = job(json!({"model": model, "output": output.dir()}));

    let before = peak();
    let state = State { step: 1, ..State::default() };
    checkpoint::write(&output, &state, &mut decoder, &optimizer).unwrap();
    assert_eq!(checkpoint::state(&output, 1).unwrap(), state);
    result::write(&output, &job, &mut decoder).unwrap();
    let more = peak() - before;
    let (room, whole) = (largest + (8 << 20), parameters as u64 * 4);
    assert!(room < whole / 3, "the model is too small to tell");
    assert!(more <= room, "saving took {more} bytes more, and the largest tensor has {largest}");
}

#[test]
fn the_room_that_is_needed_counts_the_checkpoint_that_is_written_before_another_goes() {
    let dir = tempfile::tempdir().unwrap();
    let leaves = Leaves { checkpoint: 1 << 50, result: 0 };
    let stopping = json!({"save_steps": 30, "save_total_limit": 1, "early_stopping": {}, "validation_file": "v"});
    for (more, steps, there, expected) in [
        (json!({}), 0..100, 0, 1),
        (json!({"save_steps": 30}), 0..100, 0, 4),
        (json!({"save_steps": 50}), 0..100, 0, 2),
        (json!({"save_steps": 30}), 35..100, 2, 3),
        (json!({"save_steps": 30, "save_total_limit": 2}), 0..100, 0, 3),
        (json!({"save_steps": 30, "save_total_limit": 2}), 60..100, 2, 1),
        (json!({"save_steps": 30, "save_total_limit": 9}), 0..100, 0, 4),
        (stopping, 0..100, 0, 3),
    ] {
        let said = leaves.fit(&job(more.clone()), dir.path(), steps, there).unwrap_err().to_string();
        assert!(said.starts_with(&format!("the job leaves {expected} checkpoint")), "{more}: {said}");
    }
    leaves.fit(&job(json!({})), dir.path(), 100..100, 1).unwrap();
}

/// A shell script in a place of its own, where `out` lies on a file system of `size`. `$0` is the program. What is in `out` at
/// the end comes to lie in `kept`.
fn on_a_small_disk(trial: &Trial, size: &str, script: &str) -> Said {
    fs::create_dir_all(trial.path("out")).unwrap();
    let script = format!("mount -t tmpfs -o size={size} tmpfs out\n{script}\ncode=$?\ncp -r out kept\nexit $code");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, trial::PROGRAM]);
    command.current_dir(trial.dir.path()).output().unwrap()
}

/// Runs the job until its first checkpoint. `fill` leaves `$1` bytes of room, and is called again and again: room comes back
/// when a checkpoint that was being written goes, or an older one.
const BEGUN: &str = r#"
    "$0" run out.json --wait-for-room $WAIT & run=$!
    runs() { kill -0 $run 2>/dev/null; }
    told() { grep -q "$1" out/events.jsonl 2>/dev/null; }
    fill() { kill -STOP $run; cat /dev/zero >> out/filler 2>/dev/null; truncate -s -$1 out/filler; kill -CONT $run; sleep 0.02; }
    while runs && ! told '"checkpoint"'; do sleep 0.02; done
"#;

fn long(trial: &Trial, name: &str) {
    trial.job(name, json!({"max_steps": 300, "save_steps": 10, "save_total_limit": 2, "lora": {"r": 64}}));
}

fn adapter(trial: &Trial, name: &str) -> Vec<u8> {
    fs::read(trial.path(name).join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_job_without_room_for_its_checkpoints_is_refused_with_what_would_fit() {
    let trial = Trial::new("llama");
    trial.job("out", json!({"max_steps": 6, "save_steps": 1, "lora": {"r": 64}}));
    let said = on_a_small_disk(&trial, "4500k", "\"$0\" run out.json");
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let failure = trial.failure("kept");
    assert_eq!((failure["code"].as_str(), failure["param"].as_str()), (Some("storage"), Some("output")));
    let message = failure["message"].as_str().unwrap();
    assert!(
        message.contains("leaves 6 checkpoints of") && message.contains("`save_total_limit` 2 would fit"),
        "{message}"
    );
    assert!(trial.metrics("kept").is_empty(), "it trained");
    fs::remove_dir_all(trial.path("kept")).unwrap();
    trial.job("out", json!({"max_steps": 6, "save_steps": 1, "save_total_limit": 2, "lora": {"r": 64}}));
    let said = on_a_small_disk(&trial, "4500k", "\"$0\" run out.json");
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_full_disk_costs_no_checkpoint_that_is_there() {
    let trial = Trial::new("llama");
    ["out", "whole"].iter().for_each(|name| long(&trial, name));
    let script = "while runs; do fill 0; done 2>/dev/null\nwait $run; code=$?; rm out/filler; (exit $code)";
    let said = on_a_small_disk(&trial, "16m", &format!("WAIT=1\n{BEGUN}\n{script}"));
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("make room and resume the job"), "{said:?}");
    let kept = fs::read_dir(trial.path("kept/checkpoints")).unwrap();
    let kept: Vec<String> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!kept.is_empty() && kept.iter().all(|name| !name.starts_with('.')), "{kept:?}");
    fs::remove_dir_all(trial.path("out")).unwrap();
    fs::rename(trial.path("kept"), trial.path("out")).unwrap();
    trial.succeed(&trial.path("out.json"), &["--resume"]);
    trial.succeed(&trial.path("whole.json"), &[]);
    assert_eq!(trial.losses("out"), trial.losses("whole"));
    assert!(adapter(&trial, "out") == adapter(&trial, "whole"));
}

#[test]
fn a_disk_that_was_full_for_a_while_costs_nothing() {
    let trial = Trial::new("llama");
    ["out", "whole"].iter().for_each(|name| long(&trial, name));
    // A little room is left, so that one sees what is told.
    let script = "while runs && ! told 'the disk is full'; do fill 32768; done\nrm out/filler\nwait $run";
    let said = on_a_small_disk(&trial, "16m", &format!("WAIT=600\n{BEGUN}\n{script}"));
    assert!(said.status.success(), "{said:?}");
    let told: Vec<Value> = trial.events("kept").into_iter().filter(|event| event["type"] == "message").collect();
    assert!(!told.is_empty() && told.iter().all(|event| event["level"] == "warn"), "{told:?}");
    assert!(told[0]["message"].as_str().unwrap().contains("training goes on without this checkpoint"), "{told:?}");
    trial.succeed(&trial.path("whole.json"), &[]);
    assert_eq!(trial.losses("kept"), trial.losses("whole"));
    assert!(adapter(&trial, "kept") == adapter(&trial, "whole"));
}

#[test]
fn a_result_waits_for_room() {
    let trial = Trial::new("llama");
    long(&trial, "out");
    let script = "while runs && ! told 'The result waits'; do fill 131072; done\nrm out/filler\nwait $run";
    let said = on_a_small_disk(&trial, "16m", &format!("WAIT=600\n{BEGUN}\n{script}"));
    assert!(said.status.success(), "{said:?}");
    let waits = |event: &Value| event["message"].as_str().unwrap().contains("The result waits 600 s for room");
    assert_eq!(trial.events("kept").iter().filter(|event| waits(event)).count(), 1);
    assert_eq!(trial.events("kept").last().unwrap()["type"], "succeeded");
    assert!(!adapter(&trial, "kept").is_empty());
}
