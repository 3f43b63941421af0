//! The formulas against what PyTorch was seen to hold, and against the table of sizes that people go by.

use super::*;
use crate::recipe::{Adapter, Engine, Gpu, Method, Optimizer, Precision, Serving, Sharding, Trainer, Training};
use serde_json::{Value, json};

fn lora() -> Method {
    Method::Lora(Adapter { rank: 16, alpha: None, targets: Vec::new() })
}

fn qlora() -> Method {
    Method::Qlora(Adapter { rank: 16, alpha: None, targets: Vec::new() })
}

fn plan(method: Method, precision: Precision, checkpointing: bool, batch: u64, length: u64) -> TrainingPlan {
    let training = Training {
        model: "m".to_owned(),
        datasets: Vec::new(),
        trainer: Trainer::Transformers,
        method,
        precision,
        batch,
        length,
        accumulate: 1,
        checkpointing,
        optimizer: Optimizer::AdamW,
        sharding: Sharding::Ddp,
        learning_rate: None,
        epochs: None,
    };
    TrainingPlan { training, gpus: 1, double_quantized: false, on_processor: false }
}

struct Measured {
    config: Value,
    plan: TrainingPlan,
    parameters: u64,
    /// Most bytes of live tensors in the second step.
    peak: u64,
}

impl Measured {
    fn new(config: &Value, plan: TrainingPlan, parameters: u64, peak: u64) -> Self {
        Self { config: config.clone(), plan, parameters, peak }
    }
}

/// Training steps of three models on the processor: PyTorch 2.8.0, Transformers 4.57.1, PEFT 0.18.0, fused AdamW,
/// autocast to bfloat16 where mixed; every storage counted while it lives.
fn measured() -> Vec<Measured> {
    let llama = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": 1376,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 8000,
        "tie_word_embeddings": false,
    });
    let qwen2 = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 448, "intermediate_size": 2432,
        "num_hidden_layers": 8, "num_attention_heads": 7, "num_key_value_heads": 1, "vocab_size": 32000,
        "tie_word_embeddings": true,
    });
    let bert = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 384,
        "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 10000,
    });
    vec![
        Measured::new(&llama, plan(Method::Full, Precision::Bf16, false, 2, 512), 33_497_600, 806_078_900),
        Measured::new(&llama, plan(Method::Full, Precision::Bf16, true, 2, 512), 33_497_600, 567_613_892),
        Measured::new(&llama, plan(Method::Full, Precision::PureBf16, false, 2, 512), 33_497_600, 503_184_820),
        Measured::new(&llama, plan(Method::Full, Precision::PureBf16, true, 2, 512), 33_497_600, 312_544_692),
        Measured::new(&llama, plan(Method::Full, Precision::Fp32, false, 2, 512), 33_497_600, 872_073_652),
        Measured::new(&llama, plan(Method::Full, Precision::Fp32, true, 2, 512), 33_497_600, 569_565_620),
        Measured::new(&llama, plan(lora(), Precision::Bf16, false, 2, 512), 33_497_600, 401_049_176),
        Measured::new(&llama, plan(lora(), Precision::Bf16, true, 2, 512), 33_497_600, 191_448_648),
        Measured::new(&qwen2, plan(Method::Full, Precision::Bf16, false, 2, 512), 44_167_104, 1_302_949_648),
        Measured::new(&qwen2, plan(Method::Full, Precision::Bf16, true, 2, 512), 44_167_104, 971_964_176),
        Measured::new(&qwen2, plan(Method::Full, Precision::PureBf16, false, 2, 512), 44_167_104, 905_597_072),
        Measured::new(&qwen2, plan(Method::Full, Precision::PureBf16, true, 2, 512), 44_167_104, 669_900_944),
        Measured::new(&qwen2, plan(Method::Full, Precision::Fp32, false, 2, 512), 44_167_104, 1_386_475_280),
        Measured::new(&qwen2, plan(Method::Full, Precision::Fp32, true, 2, 512), 44_167_104, 944_209_680),
        Measured::new(&qwen2, plan(lora(), Precision::Bf16, false, 2, 512), 44_167_104, 762_255_816),
        Measured::new(&qwen2, plan(lora(), Precision::Bf16, true, 2, 512), 44_167_104, 508_993_992),
        Measured::new(&bert, plan(Method::Full, Precision::Bf16, false, 8, 128), 14_833_538, 313_736_700),
        Measured::new(&bert, plan(Method::Full, Precision::Fp32, false, 8, 128), 14_833_538, 360_677_324),
    ]
}

#[test]
fn estimates_are_within_15_percent_of_what_pytorch_held() {
    for case in measured() {
        let shape = Shape::from_config(&case.config).unwrap().with_weights(Some(case.parameters), None);
        let estimate = training(&shape, &case.plan).tensors();
        let ratio = estimate as f64 / case.peak as f64;
        let what = format!("{} {:?}: {estimate} of {}, {ratio:.3}", case.config["model_type"], case.plan, case.peak);
        assert!((0.85..=1.15).contains(&ratio), "{what}");
    }
}

/// Llama 2 and Code Llama, as their `config.json` have it.
fn llama(hidden: u64, inner: u64, layers: u64, heads: u64, kv_heads: u64) -> Shape {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": 32000, "tie_word_embeddings": false,
    });
    Shape::from_config(&config).unwrap()
}

/// One line of `measured.jsonl`: a case of `tests/memory/measure.py` and what it found.
struct Found {
    name: String,
    config: Value,
    work: Value,
    found: Value,
}

/// What was measured, or what `GAPIMAGE_MEASURED` names: the same, measured anew.
fn found() -> Vec<Found> {
    let anew = std::env::var_os("GAPIMAGE_MEASURED").map(|path| std::fs::read_to_string(path).unwrap());
    let text = anew.as_deref().unwrap_or(include_str!("measured.jsonl"));
    let found = text.lines().map(|line| {
        let work: Value = serde_json::from_str(line).unwrap();
        let name = format!("{} {} {} {}", work["name"], work["method"], work["precision"], work["checkpointing"]);
        Found { name, config: work["config"].clone(), found: work["found"].clone(), work }
    });
    found.collect()
}

impl Found {
    fn number(&self, key: &str) -> u64 {
        self.found[key].as_u64().unwrap()
    }

    fn shape(&self) -> Shape {
        let width = if self.work["precision"] == "fp32" { 4 } else { 2 };
        let parameters = self.number("parameters");
        Shape::from_config(&self.config).unwrap().with_weights(Some(parameters), Some(width * parameters))
    }

    fn training(&self) -> TrainingPlan {
        let named = self.work["targets"].as_array().into_iter().flatten();
        let targets = named.map(|name| name.as_str().unwrap().to_owned()).collect();
        let adapter = Adapter { rank: self.work["rank"].as_u64().unwrap_or(16), alpha: None, targets };
        let method = match self.work["method"].as_str().unwrap() {
            "full" => Method::Full,
            "lora" => Method::Lora(adapter),
            _ => Method::Qlora(adapter),
        };
        let named = |precision: &&Precision| self.work["precision"] == precision.name();
        let precision = *Precision::ALL.iter().find(named).unwrap();
        let checkpointing = self.work["checkpointing"].as_bool().unwrap();
        let (batch, length) = (self.work["batch"].as_u64().unwrap(), self.work["length"].as_u64().unwrap());
        let on_processor = self.work["name"].as_str().is_some_and(|name| name.starts_with("tiny-"));
        TrainingPlan { double_quantized: true, on_processor, ..plan(method, precision, checkpointing, batch, length) }
    }
}

/// Models from 0.07 to 8 billion parameters of eight families: full, LoRA and QLoRA training by PyTorch 2.6.0,
/// Transformers 5.24.0, PEFT 0.21.2 and bitsandbytes 0.50.2, by tensors that have a size and no content; and small
/// ones that were really trained, on the processor (`tiny-…`).
#[test]
fn estimates_are_within_15_percent_of_what_the_training_libraries_were_seen_to_hold() {
    let trained: Vec<Found> = found().into_iter().filter(|one| one.work["work"] == "train").collect();
    assert!(trained.len() >= 30, "{}", trained.len());
    let ratio = |one: &Found| training(&one.shape(), &one.training()).tensors() as f64 / one.number("peak") as f64;
    let wrong: Vec<String> = trained
        .iter()
        .filter(|one| !(0.85..=1.15).contains(&ratio(one)))
        .map(|one| format!("{}: {:.3}", one.name, ratio(one)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The same for `generate` of Transformers: all prompts at once, then one token.
#[test]
fn estimates_of_serving_are_within_a_tenth_of_what_transformers_was_seen_to_hold() {
    let served: Vec<Found> = found().into_iter().filter(|one| one.work["work"] == "serve").collect();
    assert!(served.len() >= 4, "{}", served.len());
    for one in served {
        let (batch, length) = (one.work["batch"].as_u64().unwrap(), one.work["length"].as_u64().unwrap());
        let serving_of = Serving { model: "m".to_owned(), engine: Engine::Transformers, length, concurrency: batch };
        let plan = ServingPlan { serving: serving_of, gpus: 1, pass: pass(Engine::Transformers, None) };
        let estimate = serving(&one.shape(), &plan);
        assert_eq!(estimate.cache, one.number("cache"), "{}", one.name);
        let ratio = estimate.tensors() as f64 / one.number("peak") as f64;
        assert!((0.9..1.1).contains(&ratio), "{}: {ratio:.3}", one.name);
    }
}

/// Full, LoRA and QLoRA of 7B, 13B, 34B and 70B in gigabytes: what is published as a rule of thumb.
const RULE_OF_THUMB: [[u64; 3]; 4] = [[112, 28, 12], [208, 52, 20], [544, 136, 48], [1100, 280, 96]];

#[test]
fn estimates_are_of_the_order_of_the_rule_of_thumb() {
    let shapes = [
        llama(4096, 11008, 32, 32, 32),
        llama(5120, 13824, 40, 40, 40),
        llama(8192, 22016, 48, 64, 8),
        llama(8192, 28672, 80, 64, 8),
    ];
    for (shape, row) in shapes.iter().zip(RULE_OF_THUMB) {
        for (method, published) in [Method::Full, lora(), qlora()].into_iter().zip(row) {
            let plan = plan(method.clone(), Precision::Bf16, true, 1, 2048);
            let ratio = training(shape, &plan).total() as f64 / (published * 1_000_000_000) as f64;
            // The rule holds 4 bytes for each frozen weight of LoRA, where 2 are loaded, and twice what QLoRA needs.
            let bounds = match method {
                Method::Full => 0.9..1.15,
                Method::Lora(_) => 0.5..1.0,
                Method::Qlora(_) => 0.4..1.0,
            };
            assert!(bounds.contains(&ratio), "{} layers, {method:?}: {ratio:.2}", shape.layers);
        }
    }
}

#[test]
fn parameters_follow_from_the_shape() {
    // Llama 2 7B and 70B have 6,738,415,616 and 68,976,648,192.
    assert_eq!(llama(4096, 11008, 32, 32, 32).all_parameters(), 6_738_415_616);
    assert_eq!(llama(8192, 28672, 80, 64, 8).all_parameters(), 68_976_648_192);
}

#[test]
fn sharing_and_checkpointing_take_less_and_larger_batches_more() {
    let shape = llama(4096, 11008, 32, 32, 32);
    let base = plan(Method::Full, Precision::Bf16, false, 4, 2048);
    let total = |plan: &TrainingPlan| training(&shape, plan).total();
    let with = |change: &dyn Fn(&mut TrainingPlan)| {
        let mut changed = base.clone();
        change(&mut changed);
        total(&changed)
    };
    assert!(with(&|plan| plan.training.checkpointing = true) < total(&base));
    assert!(with(&|plan| plan.training.batch = 8) > total(&base));
    assert!(with(&|plan| plan.training.optimizer = Optimizer::AdamW8bit) < total(&base));
    let shared = |sharding| with(&|plan| (plan.gpus, plan.training.sharding) = (8, sharding));
    let order = [Sharding::Ddp, Sharding::Zero1, Sharding::Zero2, Sharding::Zero3].map(shared);
    assert!(order.is_sorted_by(|a, b| a >= b) && order[0] > order[1] && order[2] > order[3], "{order:?}");
    assert_eq!(shared(Sharding::Zero3), shared(Sharding::Fsdp));
}

#[test]
fn serving_holds_weights_and_the_cache_of_every_sequence() {
    let shape = llama(4096, 11008, 32, 32, 32).with_weights(Some(6_738_415_616), Some(13_476_831_232));
    let plan = |engine, length, concurrency, gpus| ServingPlan {
        serving: Serving { model: "m".to_owned(), engine, length, concurrency },
        gpus,
        pass: pass(engine, Gpu::named("H100-80GB").as_ref()),
    };
    let one = serving(&shape, &plan(Engine::Vllm, 4096, 1, 1));
    // Two 16-bit numbers for each of 32 layers and 4096 widths, for each of 4096 tokens.
    assert_eq!(one.cache, 2 * 2 * 32 * 4096 * 4096);
    assert_eq!(serving(&shape, &plan(Engine::Vllm, 4096, 16, 1)).cache, 16 * one.cache);
    assert_eq!(serving(&shape, &plan(Engine::Vllm, 4096, 1, 4)).weights, 13_476_831_232 / 4);
    // Blocks are whole; the appliance's own server keeps 32-bit keys and values.
    assert_eq!(serving(&shape, &plan(Engine::Vllm, 4081, 1, 1)).cache, one.cache);
    assert_eq!(serving(&shape, &plan(Engine::GapServe, 4065, 1, 1)).cache, 2 * one.cache);
    let latent = Shape { latent: Some(576), ..shape };
    assert_eq!(serving(&latent, &plan(Engine::Vllm, 4096, 1, 8)).cache, 2 * 32 * 576 * 4096);
}

#[test]
fn a_pass_of_vllm_is_as_large_as_vllm_makes_it_on_the_gpu() {
    let tokens = |gpu: &str| pass(Engine::Vllm, Gpu::named(gpu).as_ref());
    assert_eq!((tokens("L4"), tokens("A100-80GB"), tokens("H100-80GB"), tokens("B200")), (2048, 2048, 8192, 16384));
}

#[test]
fn four_bits_are_as_large_as_bitsandbytes_stores_them() {
    // Llama 3.1 8B with adapters of rank 16, all tensors of weights counted (bitsandbytes 0.50.2, double quantisation).
    const STORED: u64 = 7_972_191_616;
    let shape = Shape { vocabulary: 128_256, ..llama(4096, 14336, 32, 32, 8) };
    let weights = |double_quantized| {
        let plan = plan(qlora(), Precision::PureBf16, true, 0, 0);
        training(&shape, &TrainingPlan { double_quantized, ..plan }).weights
    };
    // Its tables of codes are a few hundred kilobytes.
    assert!(weights(true).abs_diff(STORED) < 500_000, "{}", weights(true));
    assert_eq!(weights(false) - weights(true), 3 * (shape.linear() / 64) - 4 * (shape.linear() / 64 / 256));
}

#[test]
fn a_shape_is_read_under_every_name_and_what_is_missing_is_named() {
    let gpt2 = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257});
    let shape = Shape::from_config(&gpt2).unwrap();
    assert_eq!((shape.inner, shape.gated, shape.tied, shape.language_model), (3072, false, true, true));
    let nested = json!({"vision_config": {}, "text_config": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}});
    assert_eq!(Shape::from_config(&nested).unwrap().hidden, 64);
    assert_eq!(Shape::from_config(&json!({"hidden_size": 64})), Err(ShapeError("num_hidden_layers")));
    let absurd = json!({"hidden_size": u64::MAX, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 1});
    assert_eq!(Shape::from_config(&absurd), Err(ShapeError("hidden_size")));
}
