//! Training gives what PEFT and PyTorch give: `parity/make.py` made the models, adapters and numbers in `parity/fixture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use candle_core::DType;
use gap_lm::training::Maxima;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use trial::Trial;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixture")
}

fn reference() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture().join("reference.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn probe() -> Vec<u32> {
    numbers(&reference()["probe"]).into_iter().map(|token| token as u32).collect()
}

/// Logits of the probe by the model in `model`, with the adapter in `adapter`.
fn logits(model: &Path, adapter: Option<(&Path, f64)>, dtype: DType) -> Vec<f64> {
    trial::logits(model, adapter, &probe(), dtype)
}

/// What an adapter's product is multiplied by.
fn scale(tuning: &str) -> f64 {
    if tuning == "rslora" { 4.0 } else { 2.0 }
}

#[test]
fn logits_of_every_family_are_those_of_transformers() {
    for (family, theirs) in reference()["base"].as_object().unwrap() {
        // In 64 bits the operations are composed of candle's, as on a GPU.
        for dtype in [DType::F32, DType::F64] {
            let off = difference(&logits(&fixture().join(family), None, dtype), &numbers(theirs));
            assert!(off < 1e-4, "{family} {dtype:?}: {off}");
        }
    }
}

#[test]
fn adapters_that_peft_wrote_give_its_logits_where_they_are_trained_on_and_where_they_are_served() {
    let reference = reference();
    let adapters = reference["adapters"].as_object().unwrap();
    for (name, theirs) in adapters {
        let (family, tuning) = name.rsplit_once('-').unwrap();
        let (model, adapter) = (fixture().join(family), fixture().join(name));
        let theirs = numbers(theirs);
        assert!(difference(&numbers(&reference["base"][family]), &theirs) > 0.1, "{name} changes nothing");
        let off = difference(&logits(&model, Some((&adapter, scale(tuning))), DType::F32), &theirs);
        assert!(off < 1e-4, "{name} in training: {off}");
        let off = difference(&trial::serving_logits(&model, &adapter, &probe()), &theirs);
        assert!(off < 1e-4, "{name} in serving: {off}");
    }
    let mut families = reference["base"].as_object().unwrap().keys();
    assert!(families.len() == 4 && families.all(|family| adapters.contains_key(&format!("{family}-lora"))));
}

/// Trains a case; the output lies in `out`.
fn train(case: &Value, settings: &Value, more: Value) -> Trial {
    let word = |name: &str| case[name].as_str().unwrap();
    let (family, method, tuning) = (word("family"), word("method"), word("tuning"));
    let trial = Trial { dir: tempfile::tempdir().unwrap() };
    let model = trial.path("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture().join(family).join(name), model.join(name)).unwrap();
    }
    fs::copy(fixture().join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let data = if method == "dpo" { "preferences.jsonl" } else { "train.jsonl" };
    let mut job = settings.clone();
    let steps = job.as_object_mut().unwrap().remove("steps").unwrap();
    job["max_steps"] = steps;
    job["method"] = method.into();
    job["training_file"] = fixture().join(data).to_str().unwrap().into();
    job["shuffle"] = false.into();
    job["lora"] = Value::Null;
    if tuning != "full" {
        job["lora"] = json!({"r": 4, "alpha": 8, "use_rslora": tuning == "rslora"});
        job["adapter"] = fixture().join(format!("{family}-{tuning}")).to_str().unwrap().into();
    }
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    trial.succeed(&trial.job("out", job), &[]);
    trial
}

fn norms(trial: &Trial) -> Vec<f64> {
    trial.metrics("out").iter().map(|row| row["grad_norm"].as_f64().unwrap()).collect()
}

fn compare(case: &Value, trial: &Trial) {
    let name = format!("{} {} {}", case["family"], case["method"], case["tuning"]);
    let losses = difference(&trial.losses("out"), &numbers(&case["losses"]));
    assert!(losses < 1e-4, "{name}: losses differ by {losses}");
    for (ours, theirs) in norms(trial).iter().zip(numbers(&case["norms"])) {
        let off = (ours - theirs).abs() / theirs.max(1.0);
        assert!(off < 1e-3, "{name}: norms of gradients differ by a part of {off}");
    }
}

#[test]
fn every_loss_of_fifty_steps_is_that_of_peft_and_pytorch() {
    let reference = reference();
    for case in reference["cases"].as_array().unwrap() {
        let trial = train(case, &reference["settings"], json!({}));
        compare(case, &trial);
        let ours = match case["tuning"].as_str().unwrap() {
            "full" => logits(&trial.path("out/model"), None, DType::F32),
            tuning => logits(&trial.path("model"), Some((&trial.path("out/adapter"), scale(tuning))), DType::F32),
        };
        let off = difference(&ours, &numbers(&case["logits"]));
        assert!(off < 1e-3, "{} {}: logits of what was trained differ by {off}", case["family"], case["tuning"]);
    }
    for family in reference["base"].as_object().unwrap().keys() {
        for (method, tuning) in [("supervised", "lora"), ("supervised", "full"), ("dpo", "lora"), ("dpo", "full")] {
            let has = |case: &Value| case["family"] == **family && case["method"] == method && case["tuning"] == tuning;
            assert!(reference["cases"].as_array().unwrap().iter().any(has), "{family} {method} {tuning}");
        }
    }
}

#[test]
fn a_base_in_four_bits_gives_what_bitsandbytes_gives_under_peft() {
    let reference = reference();
    let text = fs::read_to_string(fixture().join("qlora.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let probe = probe();
    for case in cases["cases"].as_array().unwrap() {
        let maxima = if case["quantization"] == "nf4" { Maxima::Exact } else { Maxima::Quantised };
        // In 64 bits the matrices are unpacked whole, as on a GPU.
        for dtype in [DType::F32, DType::F64] {
            let model = fixture().join(case["family"].as_str().unwrap());
            let off = difference(&trial::quantised_logits(&model, maxima, &probe, dtype), &numbers(&case["base"]));
            assert!(off < 1e-4, "{} {}: {off}", case["family"], case["quantization"]);
        }
        compare(case, &train(case, &reference["settings"], json!({"quantization": case["quantization"]})));
    }
}

#[test]
fn computing_activations_again_changes_nothing() {
    let reference = reference();
    let case = &reference["cases"][0];
    let plain = train(case, &reference["settings"], json!({}));
    let again = train(case, &reference["settings"], json!({"gradient_checkpointing": true}));
    assert_eq!(plain.losses("out"), again.losses("out"));
    assert_eq!(norms(&plain), norms(&again));
}
