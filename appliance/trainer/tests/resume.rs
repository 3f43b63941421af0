//! Runs that go on: to the same bits, with what they began with, and with what may be another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use serde_json::{Value, json};
use std::{fs, path::Path};
use trial::{Trial, change, signal, wait_for};

fn bytes(trial: &Trial, name: &str) -> Vec<u8> {
    fs::read(trial.path(name).join("adapter/adapter_model.safetensors")).unwrap()
}

/// What of the metrics does not depend on the machine.
fn numbers(trial: &Trial, name: &str) -> Vec<Value> {
    let mut rows = trial.metrics(name);
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        row.remove("tokens_per_second");
        row.remove("memory");
    }
    rows
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    let trial = Trial::new("qwen3");
    let more =
        json!({"max_steps": 40, "validation_file": "valid.jsonl", "gradient_accumulation_steps": 2, "save_steps": 7});
    trial.succeed(&trial.job("whole", more.clone()), &[]);
    let job = trial.job("parts", more);
    let mut child = trial.start(&job, &[]);
    wait_for(|| trial.metrics("parts").len() >= 3);
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let done = trial.metrics("parts").len();
    assert!((3..40).contains(&done), "{done}");
    assert_eq!(trial.events("parts").last().unwrap()["type"], "stopped");
    // Killed without warning, it loses what came after its last checkpoint.
    let mut child = trial.start(&job, &["--resume"]);
    wait_for(|| trial.metrics("parts").len() > done + 8);
    signal(&child, "-KILL");
    child.wait().unwrap();
    fs::write(
        trial.path("parts/metrics.jsonl"),
        fs::read_to_string(trial.path("parts/metrics.jsonl")).unwrap() + "{\"step\": 4",
    )
    .unwrap();
    trial.succeed(&job, &["--resume"]);
    assert_eq!(numbers(&trial, "whole"), numbers(&trial, "parts"));
    assert!(bytes(&trial, "whole") == bytes(&trial, "parts"), "the adapters differ");
}

#[test]
fn a_run_goes_on_from_the_last_checkpoint_that_is_not_damaged() {
    let trial = Trial::new("llama");
    let job = trial.job("out", json!({"max_steps": 6, "save_steps": 2}));
    trial.succeed(&job, &[]);
    let (rows, adapter) = (numbers(&trial, "out"), bytes(&trial, "out"));
    fs::remove_file(trial.path("out/lineage.json")).unwrap();
    let part = |step: u64, name: &str| trial.path("out/checkpoints").join(format!("step-0000000{step}")).join(name);
    change_a_number(&part(4, "parameters.safetensors"));
    fs::write(part(6, "state.json"), "{").unwrap();
    // A job that is refused changes nothing.
    let other = trial.job("out", json!({"max_steps": 6, "save_steps": 2, "max_length": 64}));
    assert_eq!(trial.run(&other, &["--resume"]).status.code(), Some(1));
    assert!(part(4, "state.json").exists() && part(6, "state.json").exists());
    let job = trial.job("out", json!({"max_steps": 6, "save_steps": 2}));
    trial.succeed(&job, &["--resume"]);
    assert_eq!(numbers(&trial, "out"), rows);
    assert!(bytes(&trial, "out") == adapter, "the adapters differ");
    let told: Vec<Value> = trial.events("out").into_iter().filter(|event| event["level"] == "warn").collect();
    assert_eq!(told.iter().map(|event| &event["data"]["damaged"]).collect::<Vec<_>>(), [6, 4]);
    assert!(
        told[1]["message"].as_str().unwrap().contains("step-00000004 is damaged: `parameters.safetensors`"),
        "{told:?}"
    );
    assert!(trial.path("out/checkpoints/damaged-step-00000004").is_dir());
    for step in [2, 4, 6] {
        change_a_number(&part(step, "moments.safetensors"));
    }
    let output = trial.run(&job, &["--resume"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("step-00000006 is damaged") && said.contains("no earlier one is whole"), "{said}");
}

#[test]
fn every_way_of_training_goes_on_to_the_same_bits() {
    let trial = Trial::new("qwen2");
    trial.succeed(&trial.job("first", json!({"max_steps": 2})), &[]);
    let row = |index: usize| json!({"prompt": format!("What follows {index}?"), "chosen": format!(" It is {}.", index + 1), "rejected": " No idea."});
    fs::write(trial.path("pairs.jsonl"), (0..30).map(|index| format!("{}\n", row(index))).collect::<String>()).unwrap();
    for (name, more) in [
        ("dpo", json!({"method": "dpo", "training_file": "pairs.jsonl"})),
        ("adapter", json!({"method": "dpo", "training_file": "pairs.jsonl", "adapter": "first/adapter"})),
        ("all", json!({"lora": null})),
        ("all-dpo", json!({"lora": null, "method": "dpo", "training_file": "pairs.jsonl"})),
        ("packing", json!({"packing": true, "max_length": 100})),
        ("qlora", json!({"quantization": "nf4"})),
    ] {
        let mut job = json!({"max_steps": 6, "save_steps": 3});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let job = trial.job(name, job);
        trial.succeed(&job, &[]);
        let result = || {
            let file =
                if name.starts_with("all") { "model/model.safetensors" } else { "adapter/adapter_model.safetensors" };
            fs::read(trial.path(name).join(file)).unwrap()
        };
        let (rows, weights) = (numbers(&trial, name), result());
        back_to_step_3(&trial, name);
        trial.succeed(&job, &["--resume"]);
        assert!(trial.events(name).iter().any(|event| event["type"] == "resumed"), "{name}");
        assert_eq!(numbers(&trial, name), rows, "{name}");
        assert!(result() == weights, "{name}: the weights differ");
    }
}

/// Takes the last checkpoint of a run of 6 steps away, so that it goes on after step 3.
fn back_to_step_3(trial: &Trial, name: &str) {
    fs::remove_dir_all(trial.path(name).join("checkpoints/step-00000006")).unwrap();
}

/// Changes the last number of a file a little.
fn change_a_number(path: &Path) {
    change(path, |mut bytes| {
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        bytes
    });
}

#[test]
fn a_run_goes_on_only_with_the_base_that_it_began_with() {
    let trial = Trial::new("llama");
    let job = trial.job("out", json!({"max_steps": 6, "save_steps": 3}));
    trial.succeed(&job, &[]);
    let adapter = bytes(&trial, "out");
    back_to_step_3(&trial, "out");
    let base = trial.path("model/model.safetensors");
    let digest = || gap_train::digest::of_model(&trial.path("model")).unwrap();
    let began_with = digest();
    change_a_number(&base);
    let output = trial.run(&job, &["--resume"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let failure = trial.failure("out");
    assert_eq!(failure["code"], "invalid_model");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains(&began_with) && message.contains(&digest()), "{message}");
    assert!(bytes(&trial, "out") == adapter, "a result was written");
    change_a_number(&base);
    trial.succeed(&job, &["--resume"]);

    back_to_step_3(&trial, "out");
    change(&trial.path("model/tokenizer_config.json"), |bytes| [&bytes[..], b"\n"].concat());
    let output = trial.run(&job, &["--resume"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the tokenizer changed"), "{output:?}");
}

#[test]
fn a_run_goes_on_only_with_the_adapter_that_it_began_with() {
    let trial = Trial::new("llama");
    trial.succeed(&trial.job("first", json!({})), &[]);
    let job = trial.job("out", json!({"max_steps": 6, "save_steps": 3, "adapter": "first/adapter"}));
    trial.succeed(&job, &[]);
    back_to_step_3(&trial, "out");
    let adapter = trial.path("first/adapter/adapter_model.safetensors");
    let began_with = gap_train::digest::of_file(&adapter).unwrap();
    change_a_number(&adapter);
    let output = trial.run(&job, &["--resume"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let failure = trial.failure("out");
    assert_eq!(failure["code"], "invalid_adapter");
    let message = failure["message"].as_str().unwrap();
    let found = gap_train::digest::of_file(&adapter).unwrap();
    assert!(message.contains(&began_with) && message.contains(&found), "{message}");
}

#[test]
fn a_run_goes_on_with_what_failures_and_warnings_advise() {
    let trial = Trial::new("llama");
    let job = json!({"max_steps": 6, "save_steps": 3, "lr_scheduler_type": "constant"});
    trial.succeed(&trial.job("out", job.clone()), &[]);
    back_to_step_3(&trial, "out");
    let mut lower = job;
    lower["learning_rate"] = json!(5e-3);
    lower["gradient_checkpointing"] = json!(true);
    trial.succeed(&trial.job("out", lower), &["--resume"]);
    let rates: Vec<f64> = trial.metrics("out").iter().map(|row| row["learning_rate"].as_f64().unwrap()).collect();
    assert_eq!(rates, [1e-2, 1e-2, 1e-2, 5e-3, 5e-3, 5e-3]);
    let told: Vec<Value> = trial.events("out").into_iter().filter(|event| event["type"] == "message").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"], json!({"step": 3, "learning_rate": 5e-3, "before": 1e-2}));
}

#[test]
fn a_clock_that_went_back_is_told_and_changes_nothing() {
    let trial = Trial::new("llama");
    let job = trial.job("out", json!({"max_steps": 4, "save_steps": 2}));
    trial.succeed(&job, &[]);
    let future =
        json!({"id": "event-1", "created_at": 9_999_999_999_u64, "level": "info", "message": "m", "type": "message"});
    let events = trial.path("out/events.jsonl");
    fs::write(&events, fs::read_to_string(&events).unwrap() + &future.to_string() + "\n").unwrap();
    fs::remove_dir_all(trial.path("out/checkpoints/step-00000004")).unwrap();
    trial.succeed(&job, &["--resume"]);
    assert!(trial.events("out").iter().any(|event| event["type"] == "clock_jumped"));
    assert_eq!(trial.losses("out").len(), 4);
}
