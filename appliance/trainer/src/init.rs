//! A new, small model with random weights and a tokenizer of its own: for trials of the whole way, and for tests.

use crate::{
    data::read_rows,
    error::{Failed, storage, unwritten},
    files::Growing,
    tensors::{self, Tensors, WriteError},
};
use candle_core::{Device, Tensor};
use gap_contract::FailureCode;
use gap_lm::training::Key;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use tokenizers::{
    AddedToken, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

/// Standard deviation of new weights.
const DEVIATION: f32 = 0.02;
const END: &str = "<|endoftext|>";
const OPEN: &str = "<|im_start|>";
const CLOSE: &str = "<|im_end|>";
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Families of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// Llama.
    Llama,
    /// Mistral, with a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases of queries, keys and values.
    Qwen2,
    /// Qwen3: norms of queries and keys.
    Qwen3,
}

impl Architecture {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Mistral => ("mistral", "MistralForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        }
    }
}

/// What the model will be like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its family.
    pub architecture: Architecture,
    /// Values of a row.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Values inside a feed-forward block.
    pub intermediate: usize,
    /// Positions.
    pub context: usize,
    /// The most tokens of its vocabulary.
    pub vocabulary: usize,
    /// Everything random follows from it.
    pub seed: u64,
}

/// Makes a model directory, with a tokenizer trained on all texts of a JSON Lines file.
///
/// # Errors
/// Where sizes do not go together, the texts cannot be read, or the directory cannot be written.
pub fn init(dir: &Path, shape: &Shape, texts: &Path) -> Result<(), Failed> {
    check(shape)?;
    let tokenizer = tokenizer(shape.vocabulary, texts)?;
    let vocabulary = tokenizer.get_vocab_size(true);
    let token = |name: &str| tokenizer.token_to_id(name);
    let config = config(shape, vocabulary, [token(END), token(CLOSE)]);
    let weights = weights(shape, vocabulary)?;
    let tokenizer = tokenizer.to_string(true).map_err(|error| internal(&error))?;
    let place: PathBuf = std::path::absolute(dir).map_err(storage("make", dir))?;
    if place.exists() {
        return Err(Failed::new(
            FailureCode::Storage,
            format!("{} is there already; name another directory", dir.display()),
        ));
    }
    let write = || -> Result<(), WriteError> {
        let json = |value: &Value| serde_json::to_vec_pretty(value).map_err(std::io::Error::from);
        let growing = Growing::begin(&place)?;
        growing.write("config.json", &json(&config)?)?;
        let more = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END,
            "model_max_length": shape.context, "chat_template": TEMPLATE,
        });
        growing.write("tokenizer_config.json", &json(&more)?)?;
        growing.write("tokenizer.json", tokenizer.as_bytes())?;
        let notes = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        tensors::save(&growing, "model.safetensors", &weights, notes)?;
        Ok(growing.finish()?)
    };
    write().map_err(unwritten("write", dir))
}

fn internal(error: &dyn std::fmt::Display) -> Failed {
    Failed::new(FailureCode::Internal, format!("the model cannot be made: {error}"))
}

fn check(shape: &Shape) -> Result<(), Failed> {
    let sizes = [shape.hidden, shape.layers, shape.heads, shape.key_heads, shape.intermediate, shape.context];
    let divides = |a: usize, b: usize| b > 0 && a.is_multiple_of(b);
    let fits = sizes.iter().all(|size| (1..=1 << 20).contains(size))
        && divides(shape.hidden, shape.heads * 2)
        && divides(shape.heads, shape.key_heads)
        && (260..=1 << 20).contains(&shape.vocabulary);
    if fits {
        return Ok(());
    }
    let message = "sizes do not go together: `heads` must divide half of `hidden`, `key-heads` must divide `heads`, and a vocabulary has at least 260 tokens";
    Err(Failed::new(FailureCode::InvalidJob, message))
}

/// Byte-level pairs, merged as often as the texts have them.
fn tokenizer(size: usize, texts: &Path) -> Result<Tokenizer, Failed> {
    let mut all = Vec::new();
    read_rows(texts, |_, row| {
        row.values().for_each(|value| collect(value, &mut all));
        Ok(())
    })?;
    if all.is_empty() {
        return Err(crate::error::invalid_data(texts, 0, "it has no texts to make a vocabulary of"));
    }
    let special = [END, OPEN, CLOSE].map(|name| AddedToken::from(name, true));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.to_vec())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut TrainerWrapper::from(trainer), all.iter()).map_err(|error| internal(&error))?;
    Ok(tokenizer)
}

/// Every text in a value.
fn collect(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, all)),
        Value::Object(values) => values.values().for_each(|value| collect(value, all)),
        _ => {}
    }
}

fn config(shape: &Shape, vocabulary: usize, [end, close]: [Option<u32>; 2]) -> Value {
    let (kind, architecture) = shape.architecture.names();
    let mut config = json!({
        "architectures": [architecture], "model_type": kind, "torch_dtype": "float32", "hidden_act": "silu",
        "vocab_size": vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.key_heads,
        "head_dim": shape.hidden / shape.heads, "max_position_embeddings": shape.context, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": null, "eos_token_id": [close, end],
        "initializer_range": DEVIATION,
    });
    if let (Some(config), Architecture::Mistral) = (config.as_object_mut(), shape.architecture) {
        config.insert("sliding_window".to_owned(), json!(shape.context.div_ceil(2)));
    }
    config
}

fn weights(shape: &Shape, vocabulary: usize) -> candle_core::Result<Tensors> {
    let mut new = New { key: Key::new(shape.seed), tensors: Tensors::new() };
    let (hidden, width) = (shape.hidden, shape.hidden / shape.heads);
    let keys = shape.key_heads * width;
    new.random("model.embed_tokens.weight", &[vocabulary, hidden])?;
    for layer in 0..shape.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, outputs, inputs) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", shape.intermediate, hidden),
            ("mlp.up_proj", shape.intermediate, hidden),
            ("mlp.down_proj", hidden, shape.intermediate),
        ] {
            new.random(&name(&format!("{part}.weight")), &[outputs, inputs])?;
            let biased = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&part);
            if shape.architecture == Architecture::Qwen2 && biased {
                new.constant(&name(&format!("{part}.bias")), outputs, 0.0)?;
            }
        }
        if shape.architecture == Architecture::Qwen3 {
            new.constant(&name("self_attn.q_norm.weight"), width, 1.0)?;
            new.constant(&name("self_attn.k_norm.weight"), width, 1.0)?;
        }
        new.constant(&name("input_layernorm.weight"), hidden, 1.0)?;
        new.constant(&name("post_attention_layernorm.weight"), hidden, 1.0)?;
    }
    new.constant("model.norm.weight", hidden, 1.0)?;
    Ok(new.tensors)
}

struct New {
    key: Key,
    tensors: Tensors,
}

impl New {
    fn random(&mut self, name: &str, shape: &[usize]) -> candle_core::Result<()> {
        let key = self.key.part(self.tensors.len() as u64);
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>() as u64).map(|place| key.normal(place) * DEVIATION).collect();
        self.tensors.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    }

    fn constant(&mut self, name: &str, length: usize, value: f32) -> candle_core::Result<()> {
        self.tensors.insert(name.to_owned(), Tensor::full(value, length, &Device::Cpu)?);
        Ok(())
    }
}
