//! Planted defects: each gives its own named fail, and nothing else fails.

mod content;
mod infrastructure;
mod software;

use super::*;
use crate::{
    check::{
        Status,
        facts::{
            Config, Crate, DataCard, Dataset, DebianPackage, Driver, Image, Layer, Model, ModelFinding, ModelPart, Tag,
            Wheel,
        },
        report::Line,
        secrets::{Finding, Found},
    },
    recipe::{
        Acceptance, Adapter, Criterion, Engine, Gpu, Job, LicensePolicy, Method, Optimizer, Precision, Serving,
        Sharding, Target, Trainer, Training, Work,
    },
};
use pep508_rs::{Requirement, VerbatimUrl};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn wheel(name: &str, version: &str, requires: &[&str]) -> Wheel {
    tagged(name, version, requires, "py3", "none", "any")
}

fn native(name: &str, version: &str, requires: &[&str]) -> Wheel {
    tagged(name, version, requires, "cp313", "cp313", "manylinux_2_28_x86_64")
}

fn tagged(name: &str, version: &str, requires: &[&str], python: &str, abi: &str, platform: &str) -> Wheel {
    let license = if name.starts_with("nvidia-") { "NVIDIA Proprietary Software" } else { "Apache-2.0" };
    Wheel {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        tags: vec![Tag { python: python.to_owned(), abi: abi.to_owned(), platform: platform.to_owned() }],
        requires: requires.iter().map(|text| text.parse::<Requirement<VerbatimUrl>>().unwrap()).collect(),
        licenses: vec![license.to_owned()],
    }
}

/// The environment of a fine-tuning image as a resolver would give it.
fn wheels() -> Vec<Wheel> {
    vec![
        wheel("accelerate", "1.12.0", &["torch>=2.0.0", "numpy>=1.17"]),
        wheel("bitsandbytes", "0.49.0", &["torch>=2.3"]),
        wheel("datasets", "4.4.1", &["numpy>=1.17", "tqdm>=4.66"]),
        wheel("huggingface-hub", "1.2.3", &["tqdm>=4.42"]),
        native("numpy", "2.3.5", &[]),
        wheel("nvidia-cuda-runtime-cu12", "12.8.90", &[]),
        wheel("nvidia-cudnn-cu12", "9.10.2.21", &[]),
        wheel("peft", "0.18.0", &["accelerate>=0.21.0", "transformers"]),
        native("safetensors", "0.7.0", &[]),
        wheel("tensorboard", "2.20.0", &["colorama; platform_system == \"Windows\""]),
        native("tokenizers", "0.22.1", &["huggingface-hub<2.0,>=0.16.4"]),
        native(
            "torch",
            "2.9.1",
            &[
                "nvidia-cuda-runtime-cu12==12.8.90; platform_system == \"Linux\"",
                "nvidia-cudnn-cu12==9.10.2.21; platform_system == \"Linux\"",
                "optree; extra == \"optree\"",
            ],
        ),
        wheel("tqdm", "4.67.1", &[]),
        wheel("transformers", "5.0.0", &["accelerate>=1.1.0; extra == \"torch\"", "tokenizers<=0.23.0,>=0.22.0"]),
        native("vllm", "0.14.0", &["torch==2.9.1"]),
    ]
}

fn training(method: Method) -> Training {
    Training {
        model: "base".to_owned(),
        datasets: vec!["tickets".to_owned()],
        trainer: Trainer::Transformers,
        method,
        precision: Precision::Bf16,
        batch: 4,
        length: 2048,
        accumulate: 8,
        checkpointing: true,
        optimizer: Optimizer::AdamW,
        sharding: Sharding::Ddp,
        learning_rate: None,
        epochs: None,
    }
}

fn lora() -> Method {
    Method::Lora(Adapter { rank: 16, alpha: None, targets: Vec::new() })
}

fn job(name: &str, work: Work) -> Job {
    Job {
        name: name.to_owned(),
        image: "train".to_owned(),
        work,
        run: Vec::new(),
        configs: Vec::new(),
        gpus: Some(1),
        endpoints: BTreeMap::new(),
    }
}

/// What is known of an appliance in which everything holds.
fn good() -> Facts {
    let serving = Serving { model: "base".to_owned(), engine: Engine::Vllm, length: 8192, concurrency: 16 };
    let card = DataCard {
        format: "instruction".to_owned(),
        records: 5000,
        duplicates: Some(0),
        personal: Some(0),
        splits: [("train", 4500), ("validation", 250), ("test", 250)]
            .map(|(part, count)| (part.to_owned(), count))
            .into(),
        longest: Some(1800),
        ..DataCard::default()
    };
    Facts {
        name: "finetune".to_owned(),
        version: "1.0.0".to_owned(),
        target: Some(Target {
            gpu: Gpu::named("H100-80GB"),
            count: 8,
            nodes: 1,
            driver: None,
            memory: Some(512 << 30),
            disk: Some(2_000_000_000_000),
        }),
        driver: Some(Driver { version: "570.124.06".parse().unwrap(), origin: "by `[target]`".to_owned() }),
        images: vec![Image {
            name: "train".to_owned(),
            debian: vec![DebianPackage {
                name: "libc6".to_owned(),
                version: "2.41-12".to_owned(),
                licenses: vec!["LGPL-2.1-or-later".to_owned()],
                is_main: true,
            }],
            programs: vec!["gap-agent".to_owned()],
            crates: vec![Crate {
                name: "serde".to_owned(),
                version: "1.0.0".to_owned(),
                license: Some("MIT OR Apache-2.0".to_owned()),
            }],
            python: Some("3.13.5".parse().unwrap()),
            glibc: Some("2.41".parse().unwrap()),
            wheels: wheels(),
            ..Image::default()
        }],
        tested: ["train".to_owned()].into(),
        models: vec![Model {
            name: "base".to_owned(),
            hub: Some("Qwen/Qwen2.5-7B".to_owned()),
            config: Some(json!({
                "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584,
                "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
                "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": false,
                "max_position_embeddings": 131072,
            })),
            parameters: Some(7_615_616_512),
            weight_bytes: Some(15_231_233_024),
            bytes: Some(15_240_000_000),
            findings: Some(Vec::new()),
            licenses: vec!["apache-2.0".to_owned()],
        }],
        datasets: vec![Dataset {
            name: "tickets".to_owned(),
            card: Some(card),
            licenses: vec!["CC0-1.0".to_owned()],
            bytes: Some(1 << 20),
        }],
        jobs: vec![job("sft", Work::Train(training(lora()))), job("serve", Work::Serve(serving))],
        configs: vec![config(json!({
            "learning_rate": 2e-4, "bf16": true, "load_best_model_at_end": true, "metric_for_best_model": "eval_loss",
            "eval_strategy": "steps", "save_strategy": "steps", "report_to": "tensorboard",
            "model_name_or_path": "Qwen/Qwen2.5-7B",
        }))],
        licenses: Some(LicensePolicy {
            allow: ["Apache-2.0", "MIT", "CC0-1.0", "LGPL-2.1-or-later", "LicenseRef-NVIDIA-Proprietary"]
                .map(str::to_owned)
                .into(),
            ..LicensePolicy::default()
        }),
        acceptance: Some(Acceptance {
            test_set: Some("tickets".to_owned()),
            metrics: vec!["accuracy".to_owned()],
            baselines: vec!["base model".to_owned()],
            criteria: vec![Criterion { metric: "accuracy".to_owned(), comparison: ">=", bound: "0.9".to_owned() }],
        }),
        layers: vec![Layer { name: "site".to_owned(), secrets: Some(Found::default()) }],
        ..Facts::default()
    }
}

fn config(content: Value) -> Config {
    Config { owner: "job sft".to_owned(), path: "sft.yaml".to_owned(), content: Ok(content) }
}

fn lines(facts: &Facts, status: Status) -> Vec<Line> {
    check(facts).lines.into_iter().filter(|line| line.status == status).collect()
}

/// The only fail of the good facts with a defect, as `rule subject: reason`.
#[track_caller]
fn only_fail(plant: impl FnOnce(&mut Facts)) -> String {
    let mut facts = good();
    plant(&mut facts);
    let fails = lines(&facts, Status::Fail);
    assert_eq!(fails.len(), 1, "{fails:#?}");
    assert!(fails[0].remedy.is_some(), "{fails:#?}");
    format!("{} {}: {}", fails[0].rule, fails[0].subject.as_deref().unwrap_or("-"), fails[0].reason)
}

#[track_caller]
fn assert_starts(found: &str, expected: &str) {
    assert!(found.starts_with(expected), "{found}\n{expected}");
}

fn train(facts: &mut Facts) -> &mut Training {
    match &mut facts.jobs[0].work {
        Work::Train(training) => training,
        other => panic!("{other:?}"),
    }
}

fn replace_wheel(facts: &mut Facts, name: &str, change: impl FnOnce(&mut Wheel)) {
    change(facts.images[0].wheels.iter_mut().find(|wheel| wheel.name.as_ref() == name).unwrap());
}

fn remove_wheel(facts: &mut Facts, name: &str) {
    facts.images[0].wheels.retain(|wheel| wheel.name.as_ref() != name);
}

#[test]
fn nothing_fails_where_everything_holds_and_every_rule_speaks() {
    let report = check(&good());
    assert!(!report.has_failed(), "{report}");
    assert_eq!(report.summary.unresolved, 0, "{report}");
    // NVIDIA's end-user licence is the one thing to know.
    let warned = lines(&good(), Status::Warn);
    assert_eq!(warned.iter().map(|line| line.rule).collect::<Vec<_>>(), ["licence-terms"], "{report}");
    for rule in &RULES {
        assert!(report.lines.iter().any(|line| line.rule == rule.name), "{}", rule.name);
    }
    let empty = check(&Facts::default());
    assert!(!empty.has_failed(), "{empty}");
    assert_eq!(report, check(&good()));
}

#[test]
fn what_is_not_known_is_unresolved_and_fails_nothing() {
    let mut facts = good();
    facts.driver = None;
    let hub = facts.models[0].hub.take();
    facts.models[0] = Model { name: "base".to_owned(), hub, ..Model::default() };
    facts.datasets[0].card = None;
    facts.layers[0].secrets = None;
    facts.unlocked = vec!["python".to_owned()];
    facts.licenses = None;
    facts.target.as_mut().unwrap().disk = None;
    replace_wheel(&mut facts, "torch", |wheel| wheel.version = "9.9".parse().unwrap());
    replace_wheel(&mut facts, "vllm", |wheel| wheel.requires.clear());
    let report = check(&facts);
    assert!(!report.has_failed(), "{report}");
    let unresolved: std::collections::BTreeSet<&str> =
        report.lines.iter().filter(|line| line.status == Status::Unresolved).map(|line| line.rule).collect();
    let expected = [
        "acceptance",
        "data",
        "dependencies",
        "driver",
        "gpu-architecture",
        "gpu-memory",
        "licences",
        "model-config",
        "secrets",
        "storage",
        "tokenizer",
        "weights",
    ];
    assert_eq!(unresolved.into_iter().collect::<Vec<_>>(), expected, "{report}");
}
