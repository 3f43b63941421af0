//! Defects of machine, driver and memory.

use super::*;

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
    assert!(remedy.contains("method = \"lora\"") || remedy.contains("adamw-8bit"), "{remedy}");
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
fn too_little_storage() {
    let found = only_fail(|facts| facts.target.as_mut().unwrap().disk = Some(40_000_000_000));
    assert_eq!(found, "storage -: 45.7 GB to 76.2 GB for models of 15.2 GB are wanted, and there are 40.0 GB");
}
