//! Jobs from outside: what they leave, how they stop and go on, and what they say about input that cannot be used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use serde_json::{Value, json};
use std::{fs, process::Command};
use trial::{Trial, change, signal, wait_for};

#[test]
fn a_job_learns_and_leaves_what_the_contract_says() {
    let trial = Trial::new("llama");
    let job =
        trial.job("out", json!({"validation_file": "valid.jsonl", "max_steps": 60, "metadata": {"who": "a test"}}));
    trial.succeed(&job, &[]);
    let losses = trial.losses("out");
    assert_eq!(losses.len(), 60);
    assert!(losses[59] < losses[0] - 0.2, "{losses:?}");
    let rows: Vec<gap_contract::Metrics> =
        trial.metrics("out").into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
    assert!(rows[9].valid_loss.unwrap() > rows[59].valid_loss.unwrap());
    let events: Vec<gap_contract::Event> =
        trial.events("out").into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
    assert_eq!(events.first().unwrap().topic, gap_contract::Topic::Started);
    assert_eq!(events.last().unwrap().topic, gap_contract::Topic::Succeeded);
    let lineage: gap_contract::Lineage =
        serde_json::from_slice(&fs::read(trial.path("out/lineage.json")).unwrap()).unwrap();
    assert_eq!(lineage.trained.steps, 60);
    assert_eq!(lineage.job.metadata["who"], "a test");
    assert_eq!(lineage.base.digest, gap_train::digest::of_model(&trial.path("model")).unwrap());
    for (path, digest) in &lineage.result {
        assert_eq!(digest, &gap_train::digest::of_file(&trial.path("out").join(path)).unwrap());
    }
    assert_eq!(lineage.result.len(), 2);
    assert_eq!(lineage.engine.device, "cpu");
    assert!(lineage.engine.versions.contains_key("candle-core"), "{:?}", lineage.engine);
}

#[test]
fn every_family_trains_with_every_option() {
    for (arch, more) in [
        ("mistral", json!({"packing": true, "gradient_checkpointing": true})),
        ("qwen2", json!({"lora": null, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2})),
        ("qwen3", json!({"lora": {"target_modules": ["q_proj", "v_proj"], "use_rslora": true}, "dtype": "bfloat16"})),
        ("llama", json!({"batch_size": "auto", "completion_only_loss": false, "gradient_accumulation_steps": 2})),
    ] {
        let trial = Trial::new(arch);
        trial.succeed(&trial.job("out", more.clone()), &[]);
        let losses = trial.losses("out");
        assert!(losses[losses.len() - 1] < losses[0], "{arch} {more}: {losses:?}");
    }
}

#[test]
fn the_number_of_checkpoints_is_bounded_and_the_best_is_the_result() {
    let trial = Trial::new("llama");
    let more = json!({"max_steps": 60, "learning_rate": 0.2, "validation_file": "valid.jsonl", "eval_steps": 2,
        "save_total_limit": 2, "early_stopping": {"patience": 3}});
    trial.succeed(&trial.job("out", more), &[]);
    let lineage: Value = serde_json::from_slice(&fs::read(trial.path("out/lineage.json")).unwrap()).unwrap();
    let (steps, best) =
        (lineage["trained"]["steps"].as_u64().unwrap(), lineage["trained"]["result_step"].as_u64().unwrap());
    assert_eq!(steps, best + 6);
    let losses: Vec<f64> = trial.metrics("out").iter().filter_map(|row| row["valid_loss"].as_f64()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(lineage["trained"]["valid_loss"].as_f64().unwrap(), least);
    assert!(fs::read_dir(trial.path("out/checkpoints")).unwrap().count() <= 3);
    assert!(trial.events("out").iter().any(|event| event["type"] == "early_stopping"));
}

#[test]
fn an_adapter_is_trained_on_only_with_its_own_base() {
    let trial = Trial::new("llama");
    trial.succeed(&trial.job("first", json!({})), &[]);
    trial.succeed(&trial.job("second", json!({"adapter": "first/adapter"})), &[]);
    assert!(trial.losses("second")[0] < trial.losses("first")[0]);
    let other = Trial::new("llama");
    let config = other.path("model/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    let job = other.job("out", json!({"adapter": trial.path("first/adapter")}));
    assert_eq!(other.run(&job, &[]).status.code(), Some(1));
    let failure = other.failure("out");
    assert_eq!(failure["code"], "invalid_adapter");
    let digest = gap_train::digest::of_model(&other.path("model")).unwrap();
    assert!(failure["message"].as_str().unwrap().contains(&digest), "{failure}");
}

#[test]
fn what_is_cut_off_is_counted() {
    let trial = Trial::new("llama");
    trial.succeed(&trial.job("out", json!({"max_length": 20})), &[]);
    let event = trial.events("out").into_iter().find(|event| event["type"] == "data").unwrap();
    assert_eq!(event["data"]["examples"], 40);
    assert!(event["data"]["truncated"].as_u64().unwrap() > 0, "{event}");
    assert!(event["data"]["cut_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn preferences_are_learned() {
    let trial = Trial::new("llama");
    write_preferences(&trial, "train.jsonl");
    trial.succeed(&trial.job("out", json!({"method": "dpo", "max_steps": 20})), &[]);
    let rows = trial.metrics("out");
    assert_eq!(rows[0]["rewards/chosen"], 0.0);
    assert!((rows[0]["train_loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-6);
    assert_eq!(rows[19]["rewards/accuracies"], 1.0);
}

/// Preferences for the plain answers to the questions of the trial.
fn write_preferences(trial: &Trial, name: &str) {
    let row = |index: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("What follows {index}?")}],
            "chosen": [{"role": "assistant", "content": format!("After {index} comes {}.", index + 1)}],
            "rejected": [{"role": "assistant", "content": format!("No idea, {index}.")}],
        })
    };
    let rows = (0..30).map(|index| row(index).to_string() + "\n").collect::<String>();
    fs::write(trial.path(name), rows).unwrap();
}

#[test]
fn preferences_that_go_on_from_an_adapter_are_held_near_it() {
    let trial = Trial::new("llama");
    trial.succeed(&trial.job("first", json!({})), &[]);
    write_preferences(&trial, "preferences.jsonl");
    let job = json!({"method": "dpo", "training_file": "preferences.jsonl", "adapter": "first/adapter", "max_steps": 12,
        "validation_file": "preferences.jsonl", "eval_steps": 12});
    let more = |other: Value| {
        let mut job = job.clone();
        job.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        job
    };
    trial.succeed(&trial.job("out", more(json!({"lora": {"r": 4}}))), &[]);
    let rows = trial.metrics("out");
    assert_eq!((&rows[0]["rewards/chosen"], &rows[0]["rewards/rejected"]), (&json!(0.0), &json!(0.0)));
    assert!((rows[0]["train_loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-6);
    assert_eq!(rows[11]["rewards/accuracies"], 1.0, "the copy stays as it was while the adapter is trained");
    // Without learning both stay the same to the end.
    trial.succeed(&trial.job("still", more(json!({"learning_rate": 0, "lora": {"r": 4}}))), &[]);
    assert!((trial.metrics("still")[11]["valid_loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-6);
}

/// Runs a job that must fail, and gives code and message of the failure.
fn refused(trial: &Trial, name: &str, more: Value) -> (String, String) {
    let output = trial.run(&trial.job(name, more), &[]);
    assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let failure = trial.failure(name);
    (failure["code"].as_str().unwrap().to_owned(), failure["message"].as_str().unwrap().to_owned())
}

#[test]
fn damaged_models_are_refused() {
    type Change = (&'static str, &'static str, fn(Vec<u8>) -> Vec<u8>, &'static str);
    let changes: [Change; 6] = [
        (
            "truncated",
            "model.safetensors",
            |mut bytes| {
                bytes.truncate(bytes.len() - 100);
                bytes
            },
            "copy it again",
        ),
        (
            "lying",
            "model.safetensors",
            |mut bytes| {
                bytes[0..8].fill(0xff);
                bytes
            },
            "header claims",
        ),
        (
            "nan",
            "model.safetensors",
            |mut bytes| {
                let end = bytes.len();
                bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
                bytes
            },
            "NaN",
        ),
        (
            "config",
            "config.json",
            |bytes| {
                String::from_utf8(bytes)
                    .unwrap()
                    .replace("\"intermediate_size\": 128", "\"intermediate_size\": 96")
                    .into()
            },
            "[96, 32]",
        ),
        (
            "tokens",
            "config.json",
            |bytes| String::from_utf8(bytes).unwrap().replace("\"vocab_size\": 300", "\"vocab_size\": 290").into(),
            "not of one piece",
        ),
        ("no-json", "config.json", |_| b"{".to_vec(), "config.json"),
    ];
    for (name, file, with, expected) in changes {
        let trial = Trial::new("llama");
        change(&trial.path("model").join(file), with);
        let (code, message) = refused(&trial, name, json!({}));
        assert!(code == "invalid_model" && message.contains(expected), "{name}: {code} {message}");
    }
}

#[test]
fn data_that_cannot_be_used_is_refused_with_its_line() {
    let trial = Trial::new("llama");
    for (name, text, expected) in [
        ("empty", "", "no examples"),
        ("json", "{\"text\": \"a\"}\n{\"text\": ", "line 2"),
        ("form", "{\"question\": \"a\"}\n", "of no form"),
        ("roles", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n", "no turn is the assistant's"),
    ] {
        fs::write(trial.path("bad.jsonl"), text).unwrap();
        let (code, message) = refused(&trial, name, json!({"training_file": "bad.jsonl"}));
        assert!(code == "invalid_data" && message.contains(expected), "{name}: {message}");
    }
    let long = json!({"text": "What follows 1? ".repeat(200)}).to_string();
    fs::write(trial.path("long.jsonl"), long).unwrap();
    let (code, message) = refused(&trial, "long", json!({"training_file": "long.jsonl"}));
    assert!(code == "invalid_job" && message.contains("set `max_length` to 128"), "{message}");
}

#[test]
fn jobs_that_cannot_fit_are_refused_with_what_would() {
    let trial = Trial::new("llama");
    let text = json!({"text": "What follows 1? ".repeat(20)}).to_string() + "\n";
    fs::write(trial.path("many.jsonl"), text.repeat(20000)).unwrap();
    let config = trial.path("model/config.json");
    change(&config, |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 900").into()
    });
    let (code, message) = refused(&trial, "large", json!({"training_file": "many.jsonl", "batch_size": 20000}));
    assert!(code == "out_of_memory" && message.contains("`batch_size`"), "{message}");
}

/// The program on a job, on a machine that says that it has `meminfo` kB left, and whatever is written there later.
fn with_memory(trial: &Trial, meminfo: u64, arguments: &[&str]) -> Command {
    fs::write(trial.path("meminfo"), format!("MemAvailable: {meminfo} kB\n")).unwrap();
    let script = "mount --bind meminfo /proc/meminfo && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, trial::PROGRAM]).args(arguments);
    command.current_dir(trial.dir.path());
    command
}

#[test]
fn auto_takes_the_largest_batch_that_fits() {
    let trial = Trial::new("llama");
    fs::write(
        trial.path("long.jsonl"),
        (json!({"text": "What follows 1? ".repeat(16)}).to_string() + "\n").repeat(300),
    )
    .unwrap();
    let estimate = |name: &str, batch: Value| -> Value {
        trial.job(name, json!({"training_file": "long.jsonl", "batch_size": batch, "max_steps": 1}));
        let output = with_memory(&trial, 100 << 10, &["estimate", &format!("{name}.json")]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(!trial.path(name).exists(), "an estimate writes something");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let number = |estimate: &Value, field: &str| estimate[field].as_u64().unwrap();
    let auto = estimate("auto", json!("auto"));
    let room = number(&auto, "available") * 4 / 5;
    let batch = number(&auto, "batch_size");
    assert!(number(&auto, "available") >= 100 << 20, "{auto}");
    assert!(batch > 1 && batch < 256 && number(&auto, "total") <= room, "{auto}");
    assert!(number(&estimate("twice", json!(2 * batch)), "total") > room, "{auto}");
    let parts: u64 = ["weights", "training", "activations"].iter().map(|part| number(&auto, part)).sum();
    assert_eq!(number(&auto, "total"), parts);
    trial.succeed(&trial.path("auto.json"), &[]);
    let told = trial.events("auto").into_iter().find(|event| event["type"] == "estimate").unwrap();
    assert_eq!(told["data"]["batch_size"], 256);
}

#[test]
fn a_job_needs_what_was_estimated_also_where_it_measures_more_than_it_trains_on() {
    let trial = Trial::new("llama");
    let sizes = ["--hidden", "256", "--layers", "2", "--vocab", "300", "--context", "512"];
    let mut init = Command::new(trial::PROGRAM);
    init.args(["init", "wide", "--arch", "llama", "--vocab-from", "train.jsonl"]).args(sizes);
    trial::succeed(init.current_dir(trial.dir.path()));
    fs::write(trial.path("short.jsonl"), json!({"text": "What?"}).to_string()).unwrap();
    let long = json!({"text": "qzjx".repeat(110)}).to_string() + "\n";
    fs::write(trial.path("long.jsonl"), long.repeat(24)).unwrap();
    let measure = |name: &str, file: &str, more: Value| {
        let mut job = json!({"model": "wide", "training_file": file, "max_steps": 1, "batch_size": 10});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        trial.succeed(&trial.job(name, job), &[]);
        let told = trial.events(name).into_iter().find(|event| event["type"] == "estimate").unwrap();
        let step = trial.metrics(name).pop().unwrap();
        (step["memory"].as_u64().unwrap() as f64, told["data"]["total"].as_u64().unwrap() as f64, told)
    };
    let (most, estimate, told) = measure("large", "long.jsonl", json!({}));
    assert!(estimate > f64::from(100 << 20), "{told}");
    assert!(most < 2.0 * estimate && most > estimate / 2.0, "{most} bytes were used, and {told}");
    let (least, ..) = measure("small", "short.jsonl", json!({}));
    // The second step says what measuring after the first took.
    let more = json!({"validation_file": "long.jsonl", "eval_steps": 1, "max_steps": 2});
    let (most, estimate, told) = measure("validation", "short.jsonl", more);
    assert!(most - least < estimate, "{most} bytes were used, {least} without measuring, and {told}");
}

#[test]
fn a_run_that_no_longer_fits_is_told_what_it_can_go_on_with() {
    let trial = Trial::new("llama");
    let text = json!({"text": "What follows 1? ".repeat(16)}).to_string() + "\n";
    fs::write(trial.path("long.jsonl"), text.repeat(128)).unwrap();
    let job = json!({"training_file": "long.jsonl", "batch_size": 128, "max_steps": 2, "save_steps": 1});
    trial.succeed(&trial.job("out", job), &[]);
    fs::remove_dir_all(trial.path("out/checkpoints/step-00000002")).unwrap();
    let output = with_memory(&trial, 64, &["run", "out.json", "--resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let failure = trial.failure("out");
    assert_eq!(failure["code"], "out_of_memory");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("set `gradient_checkpointing` and resume"), "{message}");
}

#[test]
fn memory_that_runs_out_is_told_once() {
    let trial = Trial::new("llama");
    trial.job("out", json!({"max_steps": 100_000}));
    let mut child =
        with_memory(&trial, 1 << 20, &["run", "out.json"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let told =
        || trial.events("out").into_iter().filter(|event| event["type"] == "memory_nearly_full").collect::<Vec<_>>();
    wait_for(|| trial.metrics("out").len() > 1);
    assert!(told().is_empty());
    fs::write(trial.path("meminfo"), "MemAvailable: 64 kB\n").unwrap();
    wait_for(|| !told().is_empty());
    let steps = trial.metrics("out").len();
    wait_for(|| trial.metrics("out").len() > steps + 3);
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let told = told();
    assert!(
        told.len() == 1 && told[0]["level"] == "warn" && told[0]["data"]["share"].as_f64().unwrap() > 0.9,
        "{told:?}"
    );
    let message = told[0]["message"].as_str().unwrap();
    assert!(message.contains("resume it with `gradient_checkpointing`, or begin it anew"), "{message}");
}

#[test]
fn a_validation_loss_that_rises_is_told() {
    let trial = Trial::new("llama");
    let more = json!({"max_steps": 60, "learning_rate": 0.2, "validation_file": "valid.jsonl", "eval_steps": 2});
    trial.succeed(&trial.job("out", more), &[]);
    let rows = trial.metrics("out");
    let losses: Vec<(u64, f64)> =
        rows.iter().filter_map(|row| Some((row["step"].as_u64()?, row["valid_loss"].as_f64()?))).collect();
    // Where it rose twice in a row, after it fell or at the beginning.
    let rose = |index: usize| index > 0 && losses[index].1 > losses[index - 1].1;
    let twice = |index: usize| rose(index) && index > 1 && rose(index - 1) && !(index > 2 && rose(index - 2));
    let expected: Vec<u64> = (0..losses.len()).filter(|index| twice(*index)).map(|index| losses[index].0).collect();
    let events = trial.events("out").into_iter().filter(|event| event["type"] == "validation_loss_rising");
    let told: Vec<u64> = events.map(|event| event["data"]["step"].as_u64().unwrap()).collect();
    assert!(!told.is_empty());
    assert_eq!(told, expected);
}

#[test]
fn an_output_directory_belongs_to_one_engine_and_one_run() {
    let trial = Trial::new("llama");
    let job = trial.job("out", json!({"max_steps": 100_000}));
    let mut child = trial.start(&job, &[]);
    wait_for(|| !trial.metrics("out").is_empty());
    let second = trial.run(&job, &["--resume"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another engine works on"), "{second:?}");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(trial.events("out").last().unwrap()["type"], "stopped");
    let again = trial.run(&job, &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds a run already"), "{again:?}");
    let other = trial.job("out", json!({"max_steps": 100_000, "max_length": 64}));
    let changed = trial.run(&other, &["--resume"]);
    assert!(String::from_utf8_lossy(&changed.stderr).contains("changed since the checkpoint"), "{changed:?}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_before_it_does_harm() {
    let trial = Trial::new("llama");
    let (code, message) =
        refused(&trial, "out", json!({"learning_rate": 1e30, "max_grad_norm": 0, "lora": null, "max_steps": 50}));
    assert!(code == "not_finite" && message.contains("lower `learning_rate`"), "{message}");
}

#[test]
fn a_validation_loss_that_is_no_number_ends_the_run_before_it_is_saved() {
    let trial = Trial::new("llama");
    let more = json!({"learning_rate": 1e39, "max_grad_norm": 0, "lora": null, "max_steps": 50, "save_steps": 1,
        "validation_file": "valid.jsonl", "eval_steps": 1});
    let (code, message) = refused(&trial, "out", more);
    assert!(code == "not_finite" && message.contains("the validation loss after step 1"), "{message}");
    assert_eq!(fs::read_dir(trial.path("out/checkpoints")).unwrap().count(), 0);
}

#[test]
fn wrong_jobs_are_usage_errors_and_write_nothing() {
    let trial = Trial::new("llama");
    for more in [json!({"max_steps": 0}), json!({"learning_rat": 1})] {
        let output = trial.run(&trial.job("out", more), &[]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!trial.path("out").exists());
    }
}
