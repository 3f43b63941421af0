//! Defects of machine, driver and memory.

use super::*;
use proptest::{prelude::*, sample::select};

#[test]
fn a_driver_that_is_too_old_for_the_cuda_in_the_image() {
    let found = only_fail(|facts| {
        facts.driver.as_mut().unwrap().version = "570.124.06".parse().unwrap();
        replace_wheel(facts, "torch", |wheel| wheel.version = "2.9.1+cu130".parse().unwrap());
        remove_wheel(facts, "vllm");
        facts.jobs.pop();
    });
    assert_starts(
        &found,
        "driver image train: `torch` is built for CUDA 13.0, which needs driver 580 or newer; driver 570.124.06",
    );
}

#[test]
fn any_release_of_a_family_runs_on_the_family_s_oldest_driver() {
    let mut facts = good();
    facts.driver.as_mut().unwrap().version = "525.60.13".parse().unwrap();
    let report = check(&facts);
    assert!(!report.has_failed(), "{report}");
    assert!(report.to_string().contains("minor-version compatibility"), "{report}");
}

#[test]
fn a_driver_that_does_not_know_the_gpu() {
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("B200");
        facts.driver.as_mut().unwrap().version = "550.54.14".parse().unwrap();
    });
    assert_starts(
        &found,
        "driver -: driver 550.54.14 (by `[target]`) is older than 570.26, the first that knows Blackwell",
    );
}

#[test]
fn a_driver_that_no_longer_knows_the_gpu() {
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("V100-32GB");
        facts.driver.as_mut().unwrap().version = "590.44.01".parse().unwrap();
        train(facts).precision = Precision::Fp16;
        train(facts).batch = 1;
        facts.configs.clear();
    });
    assert_starts(&found, "driver -: driver 590.44.01 (by `[target]`) no longer knows the V100-32GB");
}

#[test]
fn forward_compatibility_is_known_on_data_center_gpus_only() {
    let plant = |gpu: &str| {
        let mut facts = good();
        facts.target.as_mut().unwrap().gpu = Gpu::named(gpu);
        replace_wheel(&mut facts, "torch", |wheel| wheel.version = "2.9.1+cu130".parse().unwrap());
        facts.images[0].debian.push(DebianPackage {
            name: "cuda-compat-13-0".to_owned(),
            version: "580.65.06-1".to_owned(),
            licenses: vec!["MIT".to_owned()],
            is_main: false,
        });
        lines(&facts, Status::Fail).iter().filter(|line| line.rule == "driver").count()
    };
    assert_eq!((plant("H100-80GB"), plant("RTX-PRO-6000")), (0, 1));
}

#[test]
fn a_torch_without_code_for_the_gpu() {
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("B200");
        replace_wheel(facts, "torch", |wheel| wheel.version = "2.9.1+cu126".parse().unwrap());
    });
    assert_starts(
        &found,
        "gpu-architecture image train: torch 2.9.1+cu126 for CUDA 12.6 does not know the B200: Blackwell begins with CUDA 12.8",
    );
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("P100");
        facts.driver.as_mut().unwrap().version = "580.65.06".parse().unwrap();
        train(facts).precision = Precision::Fp32;
        train(facts).batch = 1;
        train(facts).length = 16;
        facts.configs.clear();
        facts.jobs.pop();
        facts.models[0].parameters = Some(1_000_000_000);
        facts.datasets[0].card.as_mut().unwrap().longest = None;
    });
    assert_starts(
        &found,
        "gpu-architecture image train: torch 2.9.1 for CUDA 12.8 holds no code for the P100 (compute capability 6.0), only for sm_70",
    );
}

#[test]
fn a_torch_for_the_processor_where_a_job_needs_gpus() {
    let found = only_fail(|facts| {
        replace_wheel(facts, "torch", |wheel| wheel.version = "2.9.1+cpu".parse().unwrap());
    });
    assert_starts(&found, "gpu-architecture image train: torch 2.9.1+cpu does not compute on NVIDIA GPUs");
}

#[test]
fn bfloat16_before_ampere() {
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("T4");
        facts.configs.clear();
        facts.jobs.pop();
        train(facts).batch = 1;
        train(facts).length = 16;
        facts.models[0].parameters = Some(1_000_000_000);
        facts.datasets[0].card.as_mut().unwrap().longest = None;
    });
    assert_starts(
        &found,
        "precision job sft: `precision = \"bf16\"` needs compute capability 8.0 or newer, and the T4 has 7.5 (Turing)",
    );
}

#[test]
fn too_little_memory_and_what_would_fit() {
    let mut facts = good();
    train(&mut facts).method = Method::Full;
    let fails = lines(&facts, Status::Fail);
    assert_eq!(fails.len(), 1, "{fails:#?}");
    assert_starts(&fails[0].reason, "it does not fit: ");
    let remedy = fails[0].remedy.as_deref().unwrap();
    assert!(remedy.contains("`method = \"lora\"`"), "{remedy}");
    // What is suggested fits by the same formula.
    facts.jobs[0].gpus = None;
    train(&mut facts).sharding = Sharding::Fsdp;
    let fails = lines(&facts, Status::Fail);
    assert_eq!(fails.iter().map(|line| line.rule).collect::<Vec<_>>(), ["distributed"], "{fails:#?}");
    let found = only_fail(|facts| match &mut facts.jobs[1].work {
        Work::Serve(serving) => serving.concurrency = 4096,
        other => panic!("{other:?}"),
    });
    assert_starts(&found, "gpu-memory job serve: it does not fit: ");
}

#[test]
fn a_job_of_the_processor_is_held_to_main_memory_and_to_no_gpu() {
    let mut facts = good();
    facts.jobs.pop();
    facts.configs.clear();
    facts.jobs[0].gpus = Some(0);
    facts.target.as_mut().unwrap().gpu = Gpu::named("T4");
    facts.target.as_mut().unwrap().memory = Some(200_000_000_000);
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
    facts.target.as_mut().unwrap().memory = Some(20_000_000_000);
    let fails = lines(&facts, Status::Fail);
    assert_eq!(fails.iter().map(|line| line.rule).collect::<Vec<_>>(), ["gpu-memory"], "{fails:#?}");
    assert!(fails[0].reason.contains("20.0 GB main memory"), "{fails:#?}");
}

#[test]
fn too_little_storage() {
    let found = only_fail(|facts| facts.target.as_mut().unwrap().disk = Some(40_000_000_000));
    assert_eq!(found, "storage -: 45.7 GB to 76.2 GB for models of 15.2 GB are wanted, and there are 40.0 GB");
}

#[test]
fn a_machine_without_gpus_and_what_would_fit_its_memory() {
    let mut facts = good();
    facts.jobs.pop();
    facts.configs.clear();
    train(&mut facts).precision = Precision::Fp32;
    facts.target.as_mut().unwrap().gpu = None;
    facts.target.as_mut().unwrap().memory = Some(46_000_000_000);
    let fails = lines(&facts, Status::Fail);
    assert_eq!(fails.iter().map(|line| line.rule).collect::<Vec<_>>(), ["gpu-memory"], "{fails:#?}");
    let remedy = fails[0].remedy.as_deref().unwrap();
    assert!(remedy.starts_with("what would fit: `batch = 2`, `accumulate = 16`"), "{remedy}");
    facts.target.as_mut().unwrap().memory = Some(200_000_000_000);
    assert!(!check(&facts).has_failed(), "{}", check(&facts));
}

#[test]
fn heads_that_cannot_be_divided_among_the_gpus() {
    let found = only_fail(|facts| facts.jobs[1].gpus = Some(8));
    assert_eq!(found, "serving job serve: vLLM divides the model's 28 attention heads evenly, and 8 GPUs do not");
}

#[test]
fn a_vllm_for_another_cuda_than_torch() {
    let found = only_fail(|facts| {
        replace_wheel(facts, "vllm", |wheel| {
            wheel.version = "0.33.0".parse().unwrap();
            wheel.requires.clear();
        });
    });
    assert_eq!(
        found,
        "cuda-libraries image train: vllm 0.33.0 is built for CUDA 13.x, and torch 2.9.1 beside it for CUDA 12.8"
    );
}

#[test]
fn a_bitsandbytes_without_a_library_for_the_cuda_or_code_for_the_gpu() {
    let found = only_fail(|facts| {
        facts.driver.as_mut().unwrap().version = "580.65.06".parse().unwrap();
        replace_wheel(facts, "torch", |wheel| wheel.version = "2.9.1+cu130".parse().unwrap());
        replace_wheel(facts, "bitsandbytes", |wheel| wheel.version = "0.47.0".parse().unwrap());
        remove_wheel(facts, "vllm");
        facts.jobs.pop();
    });
    assert_eq!(found, "gpu-architecture image train: bitsandbytes 0.47.0 holds no library for CUDA 13.0");
    let found = only_fail(|facts| {
        facts.target.as_mut().unwrap().gpu = Gpu::named("V100-32GB");
        facts.configs.clear();
        replace_wheel(facts, "bitsandbytes", |wheel| wheel.version = "0.46.1".parse().unwrap());
        train(facts).precision = Precision::Fp16;
        train(facts).batch = 1;
        facts.jobs.pop();
    });
    assert_starts(
        &found,
        "gpu-architecture image train: bitsandbytes 0.46.1 beside CUDA 12.8 holds no code for the V100",
    );
}

/// A small, a middle-sized and a large model.
fn models() -> [Value; 3] {
    [(1024, 3072, 28, 16, 8), (4096, 14336, 32, 32, 8), (8192, 28672, 80, 64, 8)].map(
        |(hidden, inner, layers, heads, kv_heads)| {
            json!({
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
                "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
                "num_key_value_heads": kv_heads, "vocab_size": 128_256, "tie_word_embeddings": false,
                "max_position_embeddings": 131_072,
            })
        },
    )
}

fn trainings() -> impl Strategy<Value = Work> {
    let methods = prop_oneof![
        Just(Method::Full),
        Just(lora()),
        Just(Method::Qlora(Adapter { rank: 64, alpha: None, targets: vec!["q_proj".to_owned()] }))
    ];
    let numbers = (1_u64..65, 6_u32..16, 1_u64..9, any::<bool>());
    let choices = (select(Precision::ALL), select(Optimizer::ALL), select(Sharding::ALL), select(Trainer::ALL));
    (methods, numbers, choices).prop_map(|(method, (batch, power, accumulate, checkpointing), choices)| {
        let (precision, optimizer, sharding, trainer) = choices;
        let length = 1 << power;
        let chosen = Training { precision, optimizer, sharding, trainer, batch, length, ..training(method) };
        Work::Train(Training { accumulate, checkpointing, ..chosen })
    })
}

fn servings() -> impl Strategy<Value = Work> {
    (select(Engine::ALL), 6_u32..17, 1_u64..300).prop_map(|(engine, power, concurrency)| {
        Work::Serve(Serving { model: "base".to_owned(), engine, length: 1 << power, concurrency })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is suggested is a change that makes the line pass, and says of itself how much it takes.
    #[test]
    fn whatever_is_suggested_fits(
        work in prop_oneof![trainings(), servings()], model in select(models().to_vec()),
        gpu in select(Gpu::all().map(Some).chain([None]).collect::<Vec<_>>()), gpus in 1_u32..5,
    ) {
        let mut facts = good();
        facts.models[0].config = Some(model);
        facts.models[0].parameters = None;
        facts.models[0].weight_bytes = None;
        facts.jobs = vec![Job { gpus: Some(gpus), ..job("it", work) }];
        let target = facts.target.as_mut().unwrap();
        (target.gpu, target.count) = (gpu, 4);
        let line = |facts: &Facts| lines_of(facts, "gpu-memory").remove(0);
        if line(&facts).status == Status::Pass {
            return Ok(());
        }
        for (what, job, target) in gpu_memory::suggested(&facts, 0) {
            let changed = Facts { jobs: vec![job], target: Some(target), ..facts.clone() };
            let line = line(&changed);
            prop_assert_eq!(line.status, Status::Pass, "{}: {}", what, line.reason);
        }
    }
}

fn lines_of(facts: &Facts, rule: &str) -> Vec<Line> {
    check(facts).lines.into_iter().filter(|line| line.rule == rule).collect()
}

#[test]
fn what_vllm_is_told_counts() {
    let told = |words: &[&str]| {
        let mut facts = good();
        facts.jobs[1].run = words.iter().map(|word| (*word).to_owned()).collect();
        lines_of(&facts, "gpu-memory").pop().unwrap()
    };
    let usual = told(&["vllm", "serve"]);
    assert_eq!(usual.status, Status::Pass, "{}", usual.reason);
    let little = told(&["vllm", "serve", "--gpu-memory-utilization", "0.2"]);
    assert_eq!(little.status, Status::Fail, "{}", little.reason);
    assert!(little.reason.ends_with("(the engine takes 20 % of it)"), "{}", little.reason);
    let shorter = told(&["vllm", "serve", "--max-num-batched-tokens=64"]);
    assert_ne!(shorter.reason, usual.reason);
}
