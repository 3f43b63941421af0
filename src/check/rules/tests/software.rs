//! Defects of packages and configurations.

use super::*;

#[test]
fn a_missing_accelerate() {
    let found = only_fail(|facts| remove_wheel(facts, "accelerate"));
    assert_eq!(found, "training-stack image train: `accelerate` is not there, and training needs accelerate>=1.1.0");
}

#[test]
fn a_package_that_is_too_old_for_the_trainer() {
    for (name, version, least) in [("peft", "0.17.1", "peft>=0.18.0"), ("accelerate", "1.0.1", "accelerate>=1.1.0")] {
        let found = only_fail(|facts| replace_wheel(facts, name, |wheel| wheel.version = version.parse().unwrap()));
        assert_eq!(found, format!("training-stack image train: `{name}` is {version}, and {least} is needed"));
    }
    // Transformers 4 wants the hub's client of before 1.0.
    let mut facts = good();
    replace_wheel(&mut facts, "transformers", |wheel| wheel.version = "4.57.1".parse().unwrap());
    replace_wheel(&mut facts, "huggingface-hub", |wheel| wheel.version = "0.36.0".parse().unwrap());
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
}

#[test]
fn an_adapter_without_peft_and_four_bits_without_bitsandbytes() {
    assert_starts(&only_fail(|facts| remove_wheel(facts, "peft")), "training-stack image train: `peft` is not there");
    let found = only_fail(|facts| {
        train(facts).method = Method::Qlora(Adapter { rank: 16, alpha: None, targets: Vec::new() });
        remove_wheel(facts, "bitsandbytes");
    });
    assert_starts(&found, "training-stack image train: `bitsandbytes` is not there");
}

#[test]
fn a_requirement_that_nothing_meets() {
    let found = only_fail(|facts| {
        replace_wheel(facts, "datasets", |wheel| wheel.requires.push("pyarrow>=21".parse().unwrap()));
    });
    assert_eq!(found, "dependencies image train: `pyarrow` is not there (required by datasets)");
    let found = only_fail(|facts| {
        replace_wheel(facts, "datasets", |wheel| wheel.requires.push("tqdm>=5".parse().unwrap()));
    });
    assert_eq!(found, "dependencies image train: `tqdm` is 4.67.1, and tqdm>=5 is wanted (required by datasets)");
    // An extra counts once somebody asks for it.
    let found = only_fail(|facts| {
        replace_wheel(facts, "peft", |wheel| wheel.requires.push("torch[optree]".parse().unwrap()));
    });
    assert_eq!(found, "dependencies image train: `optree` is not there (required by torch)");
}

#[test]
fn a_wheel_for_a_newer_c_library_or_another_python() {
    let found = only_fail(|facts| {
        replace_wheel(facts, "numpy", |wheel| wheel.tags[0].platform = "manylinux_2_42_x86_64".to_owned());
    });
    assert_eq!(found, "platform-tags image train: `numpy` 2.3.5: it needs glibc 2.42, and the image has 2.41");
    let found = only_fail(|facts| replace_wheel(facts, "numpy", |wheel| wheel.tags[0].abi = "cp312".to_owned()));
    assert_starts(&found, "platform-tags image train: `numpy` 2.3.5: it is built for Python `cp313-cp312`");
}

#[test]
fn a_missing_or_old_cudnn() {
    let found = only_fail(|facts| {
        replace_wheel(facts, "nvidia-cudnn-cu12", |wheel| wheel.version = "8.5.0.96".parse().unwrap());
        replace_wheel(facts, "torch", |wheel| wheel.requires.retain(|one| !one.name.as_ref().contains("cudnn")));
    });
    assert_eq!(found, "cuda-libraries image train: cuDNN is 8.5.0.96, and 8.6 or newer is needed");
    let found = only_fail(|facts| remove_wheel(facts, "nvidia-cudnn-cu12"));
    assert_eq!(found, "cuda-libraries image train: torch 2.9.1 takes cuDNN from a wheel that is not there");
}

#[test]
fn an_engine_that_is_not_there_or_a_sequence_that_is_too_long() {
    assert_starts(
        &only_fail(|facts| remove_wheel(facts, "vllm")),
        "serving job serve: it serves with `vllm`, which is not",
    );
    let found = only_fail(|facts| facts.models[0].config.as_mut().unwrap()["max_position_embeddings"] = json!(4096));
    assert_starts(&found, "serving job serve: `length = 8192` is longer than the 4096 tokens");
}

#[test]
fn sharding_without_its_configuration() {
    let shared = |sharding| {
        move |facts: &mut Facts| {
            train(facts).sharding = sharding;
            facts.images[0].wheels.push(wheel("deepspeed", "0.18.0", &[]));
        }
    };
    assert_starts(
        &only_fail(shared(Sharding::Fsdp)),
        "distributed job sft: `sharding = \"fsdp\"` needs a configuration",
    );
    assert_starts(
        &only_fail(shared(Sharding::Zero3)),
        "distributed job sft: `sharding = \"zero3\"` needs a configuration",
    );
    let mut facts = good();
    shared(Sharding::Zero2)(&mut facts);
    facts.configs.push(config(json!({"zero_optimization": {"stage": 2}})));
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
}

#[test]
fn configurations_that_break_a_training() {
    for (content, reason) in [
        (
            json!({"load_best_model_at_end": true, "eval_strategy": "steps"}),
            "`load_best_model_at_end` without `metric_for_best_model`",
        ),
        (
            json!({"args": {"load_best_model_at_end": true, "metric_for_best_model": "f1", "eval_strategy": "epoch"}}),
            "`load_best_model_at_end` needs `eval_strategy` and `save_strategy` to be the same; they are `epoch` and `steps`",
        ),
        (json!({"fp16": true, "bf16": true}), "`fp16` and `bf16` are both on"),
        (json!({"model": {"device_map": "meta"}}), "`device_map: meta` loads no weights"),
        (
            json!({"device_map": "auto", "fsdp": "full_shard"}),
            "`device_map: auto` and sharded weights exclude each other",
        ),
        (json!({"low_cpu_mem_usage": true, "zero_stage": 3}), "`low_cpu_mem_usage` and DeepSpeed's stage 3"),
        (json!({"init_empty_weights": true}), "`init_empty_weights` makes a model on the meta device"),
    ] {
        let found = only_fail(|facts| facts.configs = vec![config(content.clone())]);
        assert_starts(&found, &format!("configuration job sft, sft.yaml: {reason}"));
    }
    let broken = |facts: &mut Facts| facts.configs[0].content = Err("this is not YAML: …".to_owned());
    assert_starts(&only_fail(broken), "configuration job sft, sft.yaml: this is not YAML");
}

#[test]
fn configurations_that_reach_for_a_network() {
    for (content, reason) in [
        (json!({"push_to_hub": true}), "`push_to_hub` uploads to a hub"),
        (
            json!({"model_name_or_path": "meta-llama/Llama-3.1-8B"}),
            "it loads `meta-llama/Llama-3.1-8B`, which would be downloaded",
        ),
    ] {
        let found = only_fail(|facts| facts.configs = vec![config(content.clone())]);
        assert_starts(&found, &format!("offline job sft, sft.yaml: {reason}"));
    }
    let mut facts = good();
    facts.configs = vec![config(json!({"model_name_or_path": "/models/base"}))];
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
}

#[test]
fn a_tracker_that_is_not_there() {
    let found = only_fail(|facts| facts.configs = vec![config(json!({"report_to": ["wandb"]}))]);
    assert_starts(&found, "tracking job sft: it reports to `wandb`, which is not in the image `train`");
}

fn own_trainer(facts: &mut Facts) {
    let train = train(facts);
    (train.trainer, train.precision) = (Trainer::GapTrain, Precision::Fp32);
    facts.images[0].programs.push("gap-train".to_owned());
    facts.configs = vec![Config {
        owner: "job sft".to_owned(),
        path: "job.json".to_owned(),
        content: Ok(json!({
            "model": "/models/base", "training_file": "train.jsonl", "validation_file": "validation.jsonl",
            "output": "out", "max_steps": 100, "batch_size": 4, "gradient_accumulation_steps": 8, "max_length": 2048,
            "learning_rate": 1e-4, "lora": {"r": 16}, "gradient_checkpointing": true,
        })),
    }];
}

#[test]
fn a_training_by_the_appliance_s_own_trainer() {
    let mut facts = good();
    own_trainer(&mut facts);
    let report = check(&facts);
    assert!(!report.has_failed(), "{report}");
    assert!(report.to_string().contains("`gap-train` is in the image `train`"), "{report}");
    let found = only_fail(|facts| {
        own_trainer(facts);
        facts.images[0].programs.clear();
    });
    assert_eq!(found, "training-stack job sft: it trains with `gap-train`, which is not in the image `train`");
    let found = only_fail(|facts| {
        own_trainer(facts);
        train(facts).sharding = Sharding::Fsdp;
    });
    assert_starts(&found, "training-stack job sft: `gap-train` knows no optimizer but AdamW");
    let found = only_fail(|facts| {
        own_trainer(facts);
        facts.configs[0].content.as_mut().unwrap()["batch_size"] = json!(0);
    });
    assert_starts(&found, "configuration job sft, job.json: the job cannot be run: `batch_size`: is 0");
}

#[test]
fn main_memory_is_that_of_the_trainer_which_is_used() {
    let memory_of = |facts: &Facts, status| {
        let lines = lines(facts, status).into_iter().filter(|line| line.rule == "main-memory");
        lines.map(|line| (line.subject.unwrap_or_default(), line.reason)).collect::<Vec<_>>()
    };
    let with = |memory: u64, change: fn(&mut Facts)| {
        let mut facts = good();
        facts.target.as_mut().unwrap().memory = Some(memory);
        change(&mut facts);
        facts
    };
    let found = memory_of(&with(8_000_000_000, |_| ()), Status::Warn);
    assert_eq!(found, [(String::new(), "16.0 GB are wanted, and there are 8.0 GB".to_owned())]);
    // On a GPU the appliance's own trainer maps the weights, and needs hardly any main memory.
    assert_eq!(memory_of(&with(2_000_000_000, own_trainer), Status::Warn), []);
    // On a processor it needs what it says itself, and no more than that.
    let small = |facts: &mut Facts| {
        own_trainer(facts);
        let config = facts.models[0].config.as_mut().unwrap();
        for (key, value) in [("hidden_size", 512), ("intermediate_size", 1376), ("num_hidden_layers", 8)] {
            config[key] = json!(value);
        }
        config["vocab_size"] = json!(8000);
        (facts.models[0].parameters, facts.models[0].weight_bytes) = (None, None);
        facts.jobs[0].gpus = Some(0);
        (train(facts).batch, train(facts).length) = (4, 256);
    };
    assert_eq!(memory_of(&with(2_000_000_000, small), Status::Warn), []);
    let found = memory_of(&with(600_000_000, small), Status::Warn);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_starts(&format!("{}: {}", found[0].0, found[0].1), "job sft: 0.");
    let unknown = |facts: &mut Facts| {
        own_trainer(facts);
        facts.jobs[0].gpus = Some(0);
        facts.models[0].config = None;
    };
    assert_eq!(memory_of(&with(2_000_000_000, unknown), Status::Unresolved).len(), 1);
}

#[test]
fn the_appliance_s_own_server() {
    let serve = |facts: &mut Facts| {
        let serving = Serving { model: "base".to_owned(), engine: Engine::GapServe, length: 8192, concurrency: 16 };
        facts.jobs[1].work = Work::Serve(serving);
    };
    let found = only_fail(serve);
    assert_starts(&found, "serving job serve: it serves with `gap-serve`, which is not in the image");
    let mut facts = good();
    serve(&mut facts);
    facts.images[0].programs.push("gap-serve".to_owned());
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
}

#[test]
fn what_a_configuration_says_against_the_recipe_or_what_is_usual_is_warned_of() {
    for (content, reason) in [
        (
            json!({"per_device_train_batch_size": 16}),
            "`per_device_train_batch_size: 16`, and the recipe says `batch = 4`",
        ),
        (json!({"max_seq_length": 4096}), "`max_seq_length: 4096`, and the recipe says `length = 2048`"),
        (json!({"gradient_checkpointing": false}), "`gradient_checkpointing: false`, and the recipe says"),
        (
            json!({"learning_rate": "1e-2", "eval_strategy": "steps"}),
            "`learning_rate: 0.01` is unusual for `method = \"lora\"`",
        ),
        (json!({"num_train_epochs": 30}), "5000 records are gone through 30 times"),
        (json!({"warmup_ratio": 0.5}), "`warmup_ratio: 0.5` warms up for more than a tenth"),
        (json!({"learning_rate": 1e-4}), "it never measures on the validation part"),
    ] {
        let mut facts = good();
        facts.configs = vec![config(content)];
        let report = check(&facts);
        assert!(!report.has_failed(), "{report}");
        let warned: Vec<Line> =
            lines(&facts, Status::Warn).into_iter().filter(|line| line.rule == "hyperparameters").collect();
        assert!(matches!(warned.as_slice(), [one] if one.reason.starts_with(reason)), "{reason}: {warned:#?}");
    }
}
