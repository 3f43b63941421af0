//! What a model is, in numbers, for whoever has to size a machine for it or judge its licence.

use super::{Config, Family, Format};
use serde::Serialize;
use std::collections::BTreeMap;

/// A model as its own files describe it. What they do not say is absent, never guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelDescription {
    /// The class that loads it (`LlamaForCausalLM`), or the architecture that a GGUF file names.
    pub architecture: Option<String>,
    /// transformers' `model_type`.
    pub model_type: Option<String>,
    /// Number of parameters: elements of the stored tensors; of a quantized model those that its configuration asks for,
    /// where its family is known.
    pub parameters: Option<u64>,
    /// Type of the weights: that which most parameters have, else that of the configuration (`BF16`, `Q4_K`).
    pub dtype: Option<String>,
    /// Stored elements by type.
    pub elements: BTreeMap<String, u64>,
    /// Size of the hidden states.
    pub hidden: Option<u64>,
    /// Number of layers.
    pub layers: Option<u64>,
    /// Number of attention heads.
    pub heads: Option<u64>,
    /// Number of heads of keys and values.
    pub kv_heads: Option<u64>,
    /// Size of one head.
    pub head_dim: Option<u64>,
    /// Number of tokens.
    pub vocab: Option<u64>,
    /// Size of the inner states of the feed-forward part.
    pub intermediate: Option<u64>,
    /// Longest sequence, in tokens.
    pub max_positions: Option<u64>,
    /// Whether the output uses the embedding's weights.
    pub ties_embeddings: Option<bool>,
    /// How the weights are quantized, if they are.
    pub quantization: Option<Quantization>,
    /// Bytes of all files of weights.
    pub weight_bytes: u64,
    /// Licences that its card names, sorted.
    pub licenses: Vec<String>,
    /// Its files, by path.
    pub files: Vec<DescribedFile>,
    /// Whether the headers of all weights could be read.
    pub is_complete: bool,
}

/// How weights are quantized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quantization {
    /// The method (`gptq`, `awq`, `bitsandbytes`, `gguf`).
    pub method: String,
    /// Bits of one parameter, where it is said.
    pub bits: Option<u64>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DescribedFile {
    /// Its path in the model.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The format of the weights that it holds (`safetensors`).
    pub weights: Option<&'static str>,
}

impl ModelDescription {
    /// Takes over what a configuration says.
    pub(super) fn read_config(&mut self, config: &Config) {
        self.architecture = config.architecture().map(str::to_owned);
        self.model_type = config.model_type().map(str::to_owned);
        self.dtype = config.dtype().map(|name| torch_name(name).to_owned());
        self.hidden = config.hidden();
        self.layers = config.layers();
        self.heads = config.heads();
        self.kv_heads = config.kv_heads();
        self.head_dim = config.head_dim();
        self.vocab = config.vocab();
        self.intermediate = config.intermediate();
        self.max_positions = config.max_positions();
        self.ties_embeddings = config.ties_embeddings();
        self.quantization = config.quantization().map(|(method, bits)| Quantization { method, bits });
    }

    /// Takes over what a GGUF file says, where no configuration did.
    pub(super) fn read_gguf(&mut self, header: &super::gguf::Header) {
        let number = |key| header.of_architecture(key);
        self.architecture = self.architecture.take().or_else(|| header.architecture().map(str::to_owned));
        self.hidden = self.hidden.or_else(|| number("embedding_length"));
        self.layers = self.layers.or_else(|| number("block_count"));
        self.heads = self.heads.or_else(|| number("attention.head_count"));
        self.kv_heads = self.kv_heads.or_else(|| number("attention.head_count_kv")).or(self.heads);
        self.head_dim = self.head_dim.or_else(|| number("attention.key_length"));
        self.intermediate = self.intermediate.or_else(|| number("feed_forward_length"));
        self.max_positions = self.max_positions.or_else(|| number("context_length"));
        self.vocab = self.vocab.or_else(|| header.lengths.get("tokenizer.ggml.tokens").copied());
        for tensor in header.tensors.values() {
            self.add(tensor.kind.name(), tensor.elements());
        }
    }

    /// Counts elements of a type.
    pub(super) fn add(&mut self, dtype: String, elements: u64) {
        let sum = self.elements.entry(dtype).or_default();
        *sum = sum.saturating_add(elements);
    }

    /// Draws the sums once everything was read.
    pub(super) fn settle(&mut self, config: Option<&Config>) {
        let largest = self.elements.iter().max_by_key(|(_, count)| **count).map(|(name, _)| name.clone());
        let stored = self.elements.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let asked = config.and_then(|config| Family::of(config)?.elements(config));
        self.parameters = match (&self.quantization, stored) {
            // Several parameters share one stored element.
            (Some(_), _) | (None, 0) => asked,
            (None, stored) => Some(stored),
        };
        if let Some(largest) = largest {
            let is_gguf = self.files.iter().any(|file| file.weights == Some(Format::Gguf.name()));
            if is_gguf && !matches!(largest.as_str(), "F32" | "F16" | "BF16") && self.quantization.is_none() {
                self.quantization = Some(Quantization { method: "gguf".to_owned(), bits: None });
            }
            self.dtype = Some(largest);
        }
    }
}

/// The name that safetensors has for a type of PyTorch.
fn torch_name(name: &str) -> &str {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float64" => "F64",
        "float32" => "F32",
        "float16" => "F16",
        "bfloat16" => "BF16",
        "float8_e4m3fn" => "F8_E4M3",
        "float8_e5m2" => "F8_E5M2",
        "int8" => "I8",
        "uint8" => "U8",
        other => other,
    }
}
