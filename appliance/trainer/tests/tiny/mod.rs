//! A tiny model, made here: random weights, a byte-level tokenizer, a chat template. And an adapter for it.

#![allow(dead_code, reason = "not every test uses all of it")]

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::{collections::HashMap, fs, path::Path, process::Output};

pub const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
const HEAD: usize = HIDDEN / HEADS;
const INNER: usize = 96;
const LAYERS: usize = 2;
/// 256 bytes and three special tokens, and some rows that are no token.
const VOCABULARY: usize = 288;

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n\
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Random numbers of a normal size.
fn random(random: &mut ChaCha8Rng, shape: &[usize], size: f32) -> Tensor {
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|_| random.gen_range(-size..size)).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// Makes a model in two files of weights. `architecture` is `LlamaForCausalLM`, `Qwen2ForCausalLM` or `Qwen3ForCausalLM`.
pub fn model(dir: &Path, architecture: &str, seed: u64) {
    fs::create_dir_all(dir).unwrap();
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let mut first = HashMap::new();
    let mut second = HashMap::new();
    first.insert("model.embed_tokens.weight".to_owned(), random(&mut source, &[VOCABULARY, HIDDEN], 1.0));
    second.insert("lm_head.weight".to_owned(), random(&mut source, &[VOCABULARY, HIDDEN], 0.3));
    second.insert("model.norm.weight".to_owned(), random(&mut source, &[HIDDEN], 0.5).affine(1.0, 1.0).unwrap());
    for layer in 0..LAYERS {
        let weights = if layer == 0 { &mut first } else { &mut second };
        let mut put = |name: &str, shape: &[usize], add: f64| {
            let tensor = random(&mut source, shape, 0.25).affine(1.0, add).unwrap();
            weights.insert(format!("model.layers.{layer}.{name}"), tensor);
        };
        put("input_layernorm.weight", &[HIDDEN], 1.0);
        put("post_attention_layernorm.weight", &[HIDDEN], 1.0);
        for (name, rows, columns) in matrices() {
            put(&format!("{name}.weight"), &[rows, columns], 0.0);
        }
        match architecture {
            "Qwen2ForCausalLM" => {
                put("self_attn.q_proj.bias", &[HIDDEN], 0.0);
                put("self_attn.k_proj.bias", &[KEY_HEADS * HEAD], 0.0);
                put("self_attn.v_proj.bias", &[KEY_HEADS * HEAD], 0.0);
            }
            "Qwen3ForCausalLM" => {
                put("self_attn.q_norm.weight", &[HEAD], 1.0);
                put("self_attn.k_norm.weight", &[HEAD], 1.0);
            }
            _ => {}
        }
    }
    let mut map = Map::new();
    for (name, weights) in [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)] {
        map.extend(weights.keys().map(|tensor| (tensor.clone(), json!(name))));
        candle_core::safetensors::save(&weights, dir.join(name)).unwrap();
    }
    write(&dir.join("model.safetensors.index.json"), &json!({"metadata": {}, "weight_map": map}));
    write(
        &dir.join("config.json"),
        &json!({
            "architectures": [architecture], "model_type": architecture.to_lowercase().replace("forcausallm", ""),
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS, "head_dim": HEAD, "max_position_embeddings": 512, "vocab_size": VOCABULARY,
            "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
            "eos_token_id": 258, "torch_dtype": "float32",
        }),
    );
    tokenizer(dir);
}

fn matrices() -> [(&'static str, usize, usize); 7] {
    [
        ("self_attn.q_proj", HIDDEN, HIDDEN),
        ("self_attn.k_proj", KEY_HEADS * HEAD, HIDDEN),
        ("self_attn.v_proj", KEY_HEADS * HEAD, HIDDEN),
        ("self_attn.o_proj", HIDDEN, HIDDEN),
        ("mlp.gate_proj", INNER, HIDDEN),
        ("mlp.up_proj", INNER, HIDDEN),
        ("mlp.down_proj", HIDDEN, INNER),
    ]
}

/// A tokenizer of bytes: each is one token, written as GPT-2 writes bytes.
fn tokenizer(dir: &Path) {
    let mut vocabulary = Map::new();
    let mut next = 256;
    for byte in 0..=255u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let character = if printable {
            char::from_u32(byte).unwrap()
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap()
        };
        vocabulary.insert(character.to_string(), json!(byte));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    write(
        &dir.join("tokenizer.json"),
        &json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": level,
            "post_processor": null, "decoder": level,
            "added_tokens": [special(256, "<|endoftext|>"), special(257, "<|im_start|>"), special(258, "<|im_end|>")],
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": []},
        }),
    );
    write(
        &dir.join("tokenizer_config.json"),
        &json!({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE}),
    );
}

/// Makes an adapter for such a model, of some of its layers.
pub fn adapter(dir: &Path, use_rslora: bool, seed: u64) {
    fs::create_dir_all(dir).unwrap();
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = HashMap::new();
    for layer in 0..LAYERS {
        for (name, rows, columns) in matrices().into_iter().step_by(2) {
            let own = format!("base_model.model.model.layers.{layer}.{name}");
            weights.insert(format!("{own}.lora_A.weight"), random(&mut source, &[4, columns], 0.3));
            weights.insert(format!("{own}.lora_B.weight"), random(&mut source, &[rows, 4], 0.3));
        }
    }
    candle_core::safetensors::save(&weights, dir.join("adapter_model.safetensors")).unwrap();
    write(
        &dir.join("adapter_config.json"),
        &json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "use_rslora": use_rslora,
            "target_modules": ["q_proj", "v_proj", "gate_proj", "down_proj"], "bias": "none", "lora_dropout": 0.0,
            "fan_in_fan_out": false, "base_model_name_or_path": "tiny"}),
    );
}

/// The lineage of an adapter that was trained on a base.
pub fn lineage(run: &Path, base: &str) {
    let weights = gap_train::digest::of_file(&run.join("adapter/adapter_model.safetensors")).unwrap();
    write(
        &run.join("lineage.json"),
        &json!({
            "version": 1, "base": {"name": "model", "architecture": "LlamaForCausalLM", "digest": base}, "data": [],
            "job": {"model": "m", "training_file": "t", "output": "o", "max_steps": 1},
            "engine": {"name": "gap-train", "versions": {}, "device": "cpu"}, "started_at": 1, "finished_at": 2,
            "trained": {"steps": 1, "result_step": 1, "tokens": 1, "trainable_parameters": 1, "parameters": 1, "train_loss": 1.0},
            "result": {"adapter/adapter_model.safetensors": weights},
        }),
    );
}

pub fn write(path: &Path, json: &Value) {
    fs::write(path, json.to_string()).unwrap();
}

/// The output directory of a run of three steps, as an engine leaves it.
pub fn run(dir: &Path) {
    adapter(&dir.join("adapter"), false, 2);
    lineage(dir, "0");
    write(
        &dir.join("job.json"),
        &json!({"model": "/models/m", "training_file": "/t", "output": "/o", "max_steps": 3, "lora": {"r": 4}}),
    );
    let row = |step: u64| {
        json!({"step": step, "epoch": 0.1, "train_loss": 4.0 - step as f64, "learning_rate": 0.1, "grad_norm": 1.0,
            "tokens": 10, "trained_tokens": 10 * step, "tokens_per_second": 10.0, "memory": 1000})
    };
    let rows: String = (1..=3).map(|step| format!("{}\n", row(step))).collect();
    fs::write(dir.join("metrics.jsonl"), rows + "{\"step\": 4, \"ep").unwrap();
    let event = |id: u64, topic: &str| json!({"id": format!("event-{id}"), "created_at": 1000 + id, "level": "info", "message": "m", "type": topic});
    fs::write(dir.join("events.jsonl"), format!("{}\n{}\n", event(1, "started"), event(2, "succeeded"))).unwrap();
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Logits of the last token, as candle's own Llama computes them.
pub fn logits(model: &Path, tokens: &[u32]) -> Vec<f32> {
    use candle_core::DType;
    use candle_nn::VarBuilder;
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
    let config: LlamaConfig = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let config = config.into_config(false);
    let mut weights = HashMap::new();
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        weights.extend(candle_core::safetensors::load(model.join(name), &Device::Cpu).unwrap());
    }
    let llama = Llama::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config).unwrap();
    let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
    let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    llama.forward(&tokens, 0, &mut cache).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Logits of the last token, as serving computes them.
pub fn serving_logits(model: &Path, adapter: Option<&Path>, tokens: &[u32]) -> Vec<f32> {
    use gap_lm::inference::{
        Adapter, Allocation, Decoder, DecoderConfig, KvCache, Loader, Piece, SafetensorsDirectory,
    };
    let config = DecoderConfig::read(model).unwrap();
    let source = SafetensorsDirectory::open(model).unwrap();
    let loader = Loader { source: &source, precision: None, device: &Device::Cpu };
    let decoder = Decoder::load(config, loader).unwrap();
    let adapter = adapter.map(|dir| Adapter::load(dir, decoder.config(), &Device::Cpu).unwrap());
    let mut cache = KvCache::new(decoder.config(), tokens.len(), &Device::Cpu).unwrap();
    let mut cached = Allocation::default();
    assert!(cache.reserve(&mut cached, tokens.len()));
    let piece = Piece { tokens, start: 0, cached: &cached, adapter: adapter.as_ref(), logits: 1 };
    decoder.forward(&cache, &[piece]).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest distance between two rows of logits.
pub fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// Runs `gap-train`.
pub fn gap_train(arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_gap-train")).args(arguments).output().unwrap()
}

/// Runs `gap-train`, which must succeed.
pub fn succeed(arguments: &[&str]) -> String {
    let output = gap_train(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `gap-train`, which must fail; what it says.
pub fn fail(arguments: &[&str]) -> String {
    let output = gap_train(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
