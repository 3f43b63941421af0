//! The same answers as the libraries that the formats come from: PEFT, Transformers, gguf, llama.cpp, MLflow, TRL.
//!
//! They need Python and gigabytes of it, so they run in `make test-all`:
//! `cargo test -p gap-train --test oracles -- --ignored`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod root;
mod tiny;

use root::{Root, cache, made, repository, signal, wait_for_steps};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};
use tiny::{succeed, text};

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn the_drivers_leave_what_the_contract_says() {
    let root = made("drivers");
    let base = gap_train::digest::of_model(&root.dir().join("tiny/model")).unwrap();
    root.job(
        "lora",
        json!({"validation_file": "tiny/validation.jsonl", "eval_steps": 2, "save_steps": 3,
        "early_stopping": {"patience": 2}, "lora": {"r": 4, "use_rslora": true}, "metadata": {"ticket": "7"}}),
    );
    root.job(
        "full",
        json!({"lora": null, "packing": true, "max_length": 64, "max_steps": null, "n_epochs": 1,
        "warmup_ratio": 0.2, "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine"}),
    );
    root.job("qlora", json!({"quantization": "nf4-double-quant"}));
    root.job(
        "dpo",
        json!({"method": "dpo", "training_file": "tiny/preferences.jsonl",
        "validation_file": "tiny/preferences.jsonl"}),
    );
    for (driver, name) in [("sft", "lora"), ("sft", "full"), ("sft", "qlora"), ("dpo", "dpo")] {
        root.python(&format!("drivers/{driver}.py"), &[&format!("{name}.json")]);
        let output = root.output(name);
        output.check();
        assert_eq!(output.last_event(), "succeeded");
        let rows = output.rows("metrics.jsonl");
        let loss = |row: &Value| row["train_loss"].as_f64().unwrap();
        assert!(loss(rows.last().unwrap()) < loss(&rows[0]), "{name} learns");
        let result = if name == "full" { "model/model.safetensors" } else { "adapter/adapter_model.safetensors" };
        assert!(output.0.join(result).is_file());
        let lineage: Value = serde_json::from_slice(&fs::read(output.0.join("lineage.json")).unwrap()).unwrap();
        assert_eq!(lineage["base"]["digest"], base);
    }
    let rewards = root.output("dpo").rows("metrics.jsonl");
    assert!(rewards.iter().all(|row| row["rewards/accuracies"].is_number()));
    let measured = root.output("lora").rows("metrics.jsonl");
    assert_eq!(measured.iter().filter(|row| row["valid_loss"].is_number()).count(), 3);
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn both_engines_hold_preferences_near_the_adapter_that_they_go_on_from() {
    let root = made("reference");
    root.job("first", json!({}));
    root.python("drivers/sft.py", &["first.json"]);
    let job = json!({"method": "dpo", "training_file": "tiny/preferences.jsonl", "adapter": "out-first/adapter",
        "shuffle": false});
    root.job("trl", job.clone());
    root.job("own", job.clone());
    root.python("drivers/dpo.py", &["trl.json"]);
    succeed(&["run", text(&root.dir().join("own.json"))]);
    let (trl, own) = (root.output("trl").rows("metrics.jsonl"), root.output("own").rows("metrics.jsonl"));
    assert_eq!((trl.len(), own.len()), (6, 6));
    for name in ["train_loss", "rewards/chosen", "rewards/rejected"] {
        let number = |row: &Value| row[name].as_f64().unwrap();
        let first = if name == "train_loss" { 2f64.ln() } else { 0.0 };
        for (trl, own) in trl.iter().zip(&own) {
            assert!((number(trl) - number(own)).abs() < 1e-3, "{name}: {trl} {own}");
        }
        assert!((number(&own[0]) - first).abs() < 1e-6 && (number(&own[5]) - first).abs() > 1e-3, "{name}");
    }
    // Both ask for the adapter's shape in the job, in the same words.
    let mut other = job;
    other["lora"] = json!({"r": 8, "dropout": 0.5});
    root.job("other", other.clone());
    other["output"] = json!("out-own-other");
    root.job("own-other", other);
    let ended = root.command("drivers/dpo.py", &["other.json"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let expected = "the adapter has rank 4 and scale 4, but the job says 8 and 2; give `lora` the adapter's";
    assert!(ended.status.code() == Some(1) && said.contains(expected), "{said}");
    assert!(tiny::fail(&["run", text(&root.dir().join("own-other.json"))]).contains(expected));
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn bitsandbytes_still_gives_the_recorded_numbers() {
    let root = Root::new("qlora");
    let parity = repository().join("appliance/trainer/tests/parity");
    assert!(Command::new("cp").arg("-r").arg(parity.join(".")).arg(root.dir()).status().unwrap().success());
    root.python("qlora.py", &["fixture", "again.json"]);
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let (again, recorded) = (read(root.dir().join("again.json")), read(parity.join("fixture/qlora.json")));
    let losses = |all: &Value| -> Vec<f64> {
        let cases = all["cases"].as_array().unwrap();
        cases.iter().flat_map(|case| case["losses"].as_array().unwrap()).map(|loss| loss.as_f64().unwrap()).collect()
    };
    let (again, recorded) = (losses(&again), losses(&recorded));
    assert_eq!(again.len(), recorded.len());
    assert!(again.iter().zip(&recorded).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
#[ignore = "needs Transformers; make test-all runs it"]
fn transformers_still_renders_the_recorded_conversations() {
    let root = Root::new("templates");
    let reference = repository().join("appliance/lm/tests/reference");
    fs::copy(reference.join("templates.py"), root.dir().join("templates.py")).unwrap();
    assert!(root.python("templates.py", &[]) == fs::read_to_string(reference.join("templates.json")).unwrap());
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn a_stopped_run_and_a_killed_one_go_on_to_the_same_end() {
    let root = made("resume");
    let job = json!({"max_steps": 30, "save_steps": 2, "lora": {"r": 4, "dropout": 0.1}, "batch_size": 2});
    for name in ["whole", "stopped", "killed"] {
        root.job(name, job.clone());
    }
    root.python("drivers/sft.py", &["whole.json"]);
    for (name, with) in [("stopped", "TERM"), ("killed", "KILL")] {
        let output = root.output(name);
        let mut child =
            root.command("drivers/sft.py", &[&format!("{name}.json")]).stdout(Stdio::null()).spawn().unwrap();
        wait_for_steps(&output, &mut child, 4);
        signal(&child, with);
        let code = child.wait().unwrap().code();
        if with == "TERM" {
            assert_eq!((code, output.last_event().as_str()), (Some(3), "stopped"));
        }
        root.python("drivers/sft.py", &[&format!("{name}.json"), "--resume"]);
        output.check();
        assert_eq!(output.steps(), (1..=30).collect::<Vec<_>>());
        let weights = |name: &str| fs::read(root.output(name).0.join("adapter/adapter_model.safetensors")).unwrap();
        assert!(weights(name) == weights("whole"), "{name}: the same bits");
    }
    let again = root.command("drivers/sft.py", &["whole.json"]).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "a finished run is not overwritten");
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn a_run_goes_on_only_with_the_job_and_the_data_that_it_began_with() {
    let root = made("changed");
    let job = |more: Value| {
        let mut job = json!({"max_steps": 4, "save_steps": 2, "lora": {"r": 4}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        root.job("run", job);
    };
    let resume = || root.command("drivers/sft.py", &["run.json", "--resume"]).output().unwrap();
    let output = root.output("run");
    job(json!({}));
    root.python("drivers/sft.py", &["run.json"]);
    let weights = || fs::read(output.0.join("adapter/adapter_model.safetensors")).unwrap();
    let before = (fs::read(output.0.join("job.json")).unwrap(), weights());
    let refused = |what: &str| {
        let ended = resume();
        assert_eq!(ended.status.code(), Some(1), "{what}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("the tokenizer or the adapter changed since the checkpoint"), "{what}: {said}");
        assert_eq!(output.rows("events.jsonl").last().unwrap()["error"]["code"], "invalid_job");
        assert!(before == (fs::read(output.0.join("job.json")).unwrap(), weights()), "{what}: nothing changed");
    };
    job(json!({"weight_decay": 0.5}));
    refused("another decay");
    job(json!({}));
    let tokenizer = root.dir().join("tiny/model/tokenizer_config.json");
    let text = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, text.clone() + "\n").unwrap();
    refused("another tokenizer");
    fs::write(&tokenizer, text).unwrap();
    let base = root.dir().join("tiny/model/model.safetensors");
    let bytes = fs::read(&base).unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&base, other).unwrap();
    refused("another base");
    fs::write(&base, bytes).unwrap();
    let data = root.dir().join("tiny/train.jsonl");
    let rows = fs::read_to_string(&data).unwrap();
    fs::write(&data, rows.lines().skip(1).map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    refused("other data");
    fs::write(&data, rows).unwrap();
    // What decides about no number may change, and a run that was over makes no further step.
    job(json!({"save_steps": 3, "metadata": {"ticket": "8"}}));
    assert_eq!(resume().status.code(), Some(0));
    output.check();
    assert_eq!(output.steps(), [1, 2, 3, 4]);
    assert!(before.1 == weights());
    // The learning rate is what one changes when a run went astray.
    let rates = || -> Vec<f64> {
        output.rows("metrics.jsonl").iter().map(|row| row["learning_rate"].as_f64().unwrap()).collect()
    };
    let began_with = rates();
    fs::remove_dir_all(output.0.join("checkpoints/step-00000004")).unwrap();
    job(json!({"learning_rate": 0.02, "gradient_checkpointing": true}));
    assert_eq!(resume().status.code(), Some(0));
    let went_on = rates();
    assert_eq!(went_on[..2], began_with[..2]);
    assert!(went_on[2..].iter().zip(&began_with[2..]).all(|(new, old)| (new - 2.0 * old).abs() < 1e-9), "{went_on:?}");
    let told = output.rows("events.jsonl").into_iter().find(|event| event["type"] == "message").unwrap();
    assert_eq!(told["data"], json!({"step": 2, "learning_rate": 0.02, "before": 0.01}));
    assert!(before.1 != weights());
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn a_run_that_was_killed_before_its_first_checkpoint_begins_anew() {
    let root = made("anew");
    for (name, more) in [("plain", vec![]), ("resumed", vec!["--resume"])] {
        root.job(name, json!({"max_steps": 2}));
        let output = root.output(name);
        fs::create_dir_all(output.0.join("checkpoints")).unwrap();
        let row = json!({"step": 1, "epoch": 0.1, "train_loss": 9.0, "learning_rate": 0.1, "grad_norm": 1.0, "tokens": 10,
            "trained_tokens": 10, "tokens_per_second": 10.0, "memory": 1000});
        fs::write(output.0.join("metrics.jsonl"), format!("{row}\n{{\"step\": 2, \"ep")).unwrap();
        let job = format!("{name}.json");
        root.python("drivers/sft.py", &[&[job.as_str()], &more[..]].concat());
        output.check();
        assert_eq!(output.steps(), [1, 2]);
        assert_ne!(output.rows("metrics.jsonl")[0]["train_loss"], 9.0);
    }
}

#[test]
#[ignore = "needs Transformers; make test-all runs it"]
fn answers_that_the_template_writes_otherwise_at_the_end_count_as_with_gap_train() {
    let root = made("thoughts");
    let model = root.dir().join("tiny/model");
    let recorded = repository().join("appliance/lm/tests/reference/templates.json");
    let recorded: Value = serde_json::from_slice(&fs::read(recorded).unwrap()).unwrap();
    let templates = recorded["templates"].as_array().unwrap();
    let template = templates.iter().find(|template| template["name"] == "chatml-thoughts").unwrap();
    fs::write(model.join("chat_template.jinja"), template["template"].as_str().unwrap()).unwrap();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let turns = vec![turn("user", "a?"), turn("assistant", "one"), turn("user", "b?"), turn("assistant", " two ")];
    tiny::write(&root.dir().join("turns.json"), &json!(turns));
    let found = root.script(
        "import json, sys\n\
         sys.path.insert(0, 'drivers')\n\
         from transformers import AutoTokenizer\n\
         from gap_driver import examples, failure\n\
         tokenizer = AutoTokenizer.from_pretrained('tiny/model')\n\
         turns = json.load(open('turns.json'))\n\
         place = ('train.jsonl', 1, 'training_file')\n\
         ids, counts = examples._conversation(turns, place, tokenizer, None)\n\
         turns[1]['content'] = '<think>\\nx\\n</think>\\n\\none'\n\
         try:\n\
         \x20   said = examples._conversation(turns, place, tokenizer, None)\n\
         except failure.Failure as error:\n\
         \x20   said = error.message\n\
         plain = examples._continuation('The door is ', 'red', tokenizer)\n\
         print(json.dumps([list(zip(ids, counts)), said, list(zip(*plain))]))\n",
    );
    let encoder = gap_train::data::Encoder::read(&model, 400).unwrap();
    let example = gap_train::data::Example::Conversation { turns, tools: None };
    let own = encoder.encode(&example, true).unwrap();
    assert_eq!(found[0], json!(own[0].tokens()));
    assert!(own[0].tokens().iter().filter(|(_, counts)| *counts).count() > 4, "both answers count");
    let example =
        gap_train::data::Example::Completion { prompt: "The door is ".to_owned(), answers: vec!["red".to_owned()] };
    let own = encoder.encode(&example, true).unwrap();
    assert_eq!(found[2], json!(own[0].tokens()), "a token that begins with the prompt's space");
    assert!(found[1].as_str().unwrap().contains("writes turn 2 differently within the conversation"), "{}", found[1]);
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn two_processes_train_one_model_under_torchrun_and_alone() {
    let root = made("two");
    let job = json!({"validation_file": "tiny/validation.jsonl", "batch_size": 2, "save_steps": 3, "shuffle": false});
    root.job("torchrun", job.clone());
    root.job("alone", job);
    root.job(
        "one",
        json!({"validation_file": "tiny/validation.jsonl", "batch_size": 4, "save_steps": 3, "shuffle": false}),
    );
    root.job("stop", json!({"max_steps": 500, "batch_size": 2}));
    let own = "drivers/tests/torchrun.py";
    // As the appliance starts it (appliance/agent/src/work/submit/launch.rs).
    let options = [
        "--nnodes=1",
        "--nproc-per-node=2",
        "--master-addr=127.0.0.1",
        "--master-port=29500",
        "--no-python",
        "python3",
    ];
    root.python(own, &[&options[..], &[own, "drivers/sft.py", "torchrun.json"]].concat());
    root.python("drivers/sft.py", &["alone.json", "--processes", "2"]);
    root.python("drivers/sft.py", &["one.json"]);
    let losses = |name: &str| {
        let output = root.output(name);
        output.check();
        output.rows("metrics.jsonl").iter().map(|row| row["train_loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    for name in ["torchrun", "alone"] {
        for (two, one) in losses(name).iter().zip(losses("one")) {
            assert!((two - one).abs() < 1e-3, "two processes see what one sees with twice the batch: {two} {one}");
        }
    }
    let output = root.output("stop");
    let mut child =
        root.command("drivers/sft.py", &["stop.json", "--processes", "2"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_steps(&output, &mut child, 2);
    signal(&child, "TERM");
    assert_eq!((child.wait().unwrap().code(), output.last_event().as_str()), (Some(3), "stopped"));
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn jobs_that_cannot_run_say_why() {
    let root = made("bad");
    let job = |name: &str, more: Value| {
        root.job(name, more);
        let output = root.command("drivers/sft.py", &[&format!("{name}.json")]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (name, more, expected) in [
        ("unknown", json!({"learning_rat": 1}), "unknown field `learning_rat`"),
        ("both", json!({"n_epochs": 1}), "`n_epochs`"),
        ("word", json!({"dtype": "float8"}), "`dtype`"),
        ("dpo", json!({"method": "dpo"}), "this driver does supervised"),
    ] {
        let (code, said) = job(name, more);
        assert!(code == Some(2) && said.contains(expected), "{name}: {code:?} {said}");
        assert!(!root.output(name).0.exists(), "nothing was written");
    }
    fs::write(root.dir().join("broken.jsonl"), "{\"text\": \"a b c\"}\n{\"text\": ").unwrap();
    fs::create_dir(root.dir().join("empty")).unwrap();
    root.script(
        "from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM\n\
         AutoTokenizer.from_pretrained('tiny/model').save_pretrained('small')\n\
         config = LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)\n\
         LlamaForCausalLM(config).save_pretrained('small')\n\
         print(1)\n",
    );
    fs::create_dir_all(root.dir().join("other/adapter")).unwrap();
    tiny::write(&root.dir().join("other/lineage.json"), &json!({"base": {"name": "another", "digest": "00ff"}}));
    for (name, more, code, expected) in [
        ("data", json!({"training_file": "broken.jsonl"}), "invalid_data", "line 2 of broken.jsonl"),
        ("model", json!({"model": "empty"}), "invalid_model", "empty"),
        ("target", json!({"lora": {"target_modules": ["nothing"]}}), "invalid_job", "nothing"),
        ("base", json!({"adapter": "other/adapter"}), "invalid_adapter", "was trained on `another` with digest 00ff"),
        ("tokenizer", json!({"model": "small"}), "invalid_model", "the model has 100 rows; they are not of one piece"),
    ] {
        let (exit, said) = job(name, more);
        assert!(exit == Some(1) && said.contains(expected), "{name}: {exit:?} {said}");
        let events = root.output(name).rows("events.jsonl");
        assert_eq!(events.last().unwrap()["error"]["code"], code);
    }
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn a_merged_model_is_what_peft_merges_and_transformers_loads_it() {
    let root = Root::new("merge");
    let dir = root.dir();
    tiny::model(&dir.join("model"), "Qwen2ForCausalLM", 1);
    for (name, use_rslora) in [("lora", false), ("rslora", true)] {
        tiny::adapter(&dir.join(name), use_rslora, 2);
        let merged = dir.join(format!("{name}-merged"));
        succeed(&["merge", text(&dir.join("model")), text(&dir.join(name)), "-o", text(&merged)]);
        let found = root.script(&format!(
            "import json, torch\n\
             from peft import PeftModel\n\
             from transformers import AutoModelForCausalLM as Auto\n\
             base = Auto.from_pretrained('model', dtype=torch.float32)\n\
             ids = torch.tensor([[257, 117, 115, 101, 114, 10, 72, 105]])\n\
             plain = base(ids).logits.detach().clone()\n\
             peft = PeftModel.from_pretrained(base, '{name}').merge_and_unload()(ids).logits\n\
             ours = Auto.from_pretrained('{name}-merged', dtype=torch.float32)(ids).logits\n\
             print(json.dumps([(peft - ours).abs().max().item(), (plain - ours).abs().max().item()]))\n"
        ));
        assert!(found[0].as_f64().unwrap() < 1e-4 && found[1].as_f64().unwrap() > 0.1, "{found}");
    }
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn gguf_and_llama_cpp_read_what_is_exported() {
    let root = made("gguf");
    let dir = root.dir();
    let model = dir.join("tiny/model");
    for quant in ["f16", "q8_0"] {
        succeed(&["export", text(&model), "-o", text(&dir.join(format!("{quant}.gguf"))), "--quant", quant]);
    }
    let found = root.script(include_str!("oracles/gguf.py"));
    assert_eq!(found["architecture"], "llama");
    assert_eq!(found["tokens"], found["transformers_tokens"], "llama.cpp cuts text up as Transformers does");
    assert_eq!(found["tensors"], 21);
    assert!(found["f16_distance"].as_f64().unwrap() < 0.02, "{found}");
    assert!(found["q8_0_distance"].as_f64().unwrap() < 0.1, "{found}");
    assert_eq!(found["f16_text"], found["transformers_text"]);
}

#[test]
#[ignore = "needs PyTorch; make test-all runs it"]
fn perplexity_and_answers_are_those_of_transformers() {
    let root = made("evaluation");
    let dir = root.dir();
    root.job("learn", json!({"max_steps": 60, "batch_size": 8, "lora": {"r": 16}}));
    root.python("drivers/sft.py", &["learn.json"]);
    tiny::write(
        &dir.join("evaluation.json"),
        &json!({"model": "tiny/model", "data": "tiny/validation.jsonl", "output": "evaluation", "max_new_tokens": 8,
            "candidates": {"base": {}, "new": {"adapter": "out-learn/adapter"}},
            "metrics": {"perplexity": true, "exact_match": {}}}),
    );
    succeed(&["eval", text(&dir.join("evaluation.json"))]);
    let report: Value = serde_json::from_slice(&fs::read(dir.join("evaluation/report.json")).unwrap()).unwrap();
    let expected = root.script(include_str!("oracles/evaluation.py"));
    for candidate in ["base", "new"] {
        let measured = report["measured"].as_array().unwrap();
        let perplexity = |entry: &&Value| entry["candidate"] == candidate && entry["metric"] == "perplexity";
        let found = measured.iter().find(perplexity).unwrap()["value"].as_f64().unwrap();
        let wanted = expected[candidate]["perplexity"].as_f64().unwrap();
        assert!((found / wanted - 1.0).abs() < 1e-3, "{candidate}: {found} {wanted}");
        let answers: Vec<&Value> =
            report["examples"].as_array().unwrap().iter().map(|example| &example["answers"][candidate]).collect();
        assert_eq!(json!(answers), expected[candidate]["answers"]);
    }
    assert!(
        report["compared"]
            .as_array()
            .unwrap()
            .iter()
            .any(|compared| { compared["metric"] == "perplexity" && compared["interval"][1].as_f64().unwrap() < 0.0 })
    );
}

#[test]
#[ignore = "needs MLflow; make test-all runs it"]
fn mlflow_opens_what_is_written() {
    let venv = cache().join("mlflow");
    assert!(Command::new(repository().join("tests/mlflow.sh")).arg(&venv).status().unwrap().success());
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    tiny::run(&one);
    succeed(&["mlflow", text(&one), "-o", text(&dir.path().join("runs")), "--experiment", "tickets"]);
    fs::rename(dir.path().join("runs"), dir.path().join("carried")).unwrap();
    let program = include_str!("oracles/mlflow.py");
    let mut python = Command::new("unshare");
    python.arg("--net").arg(venv.join("bin/python")).args(["-c", program]).current_dir(dir.path().join("carried"));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value =
        serde_json::from_slice(output.stdout.split(|&byte| byte == b'\n').rfind(|line| !line.is_empty()).unwrap())
            .unwrap();
    assert_eq!((&found["experiment"], &found["status"]), (&json!("tickets"), &json!("FINISHED")));
    assert_eq!((&found["params"]["lora.r"], &found["losses"]), (&json!("4"), &json!([3.0, 2.0, 1.0])));
    assert_eq!(found["tags"]["gapimage.base.digest"], "0");
    assert!(found["artifacts"].as_array().unwrap().contains(&json!("adapter")), "{found}");
}
