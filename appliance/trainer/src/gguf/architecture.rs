//! What a `config.json` says, in the words of GGUF; and where each of its tensors goes.

use super::format::Value;
use serde::Deserialize;

/// Architectures that are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and Mistral; llama.cpp rotates neighbouring pairs, so query and key are reordered.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Why a model cannot be described in GGUF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// `config.json` is no configuration of a language model.
    #[error("config.json is not as expected: {0}")]
    Config(#[from] serde_json::Error),
    /// An architecture that is not exported.
    #[error(
        "the architecture {0:?} cannot be exported; LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM can"
    )]
    Unknown(Vec<String>),
    /// Numbers that contradict each other.
    #[error("config.json contradicts itself: {0}")]
    Contradiction(String),
    /// A way of stretching positions that has no words in GGUF.
    #[error("positions are scaled by {0:?}, which cannot be exported; default, linear, llama3 and yarn can")]
    Rope(String),
    /// A setting of positions that has no words in GGUF, and changes what the model computes.
    #[error(
        "positions are scaled by yarn with `{0}`, which GGUF cannot say; without it the model would compute otherwise"
    )]
    Yarn(&'static str),
    /// A tensor that has no place.
    #[error("`{0}` has no place in a GGUF of this architecture")]
    Tensor(String),
}

/// A model's shape.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// Which names and which order of query and key it has.
    pub family: Family,
    config: Config,
    head_dim: u32,
}

#[derive(Debug, Clone, Deserialize)]
struct Config {
    architectures: Vec<String>,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: u32,
    vocab_size: u32,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u32>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
}

impl Architecture {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ArchitectureError`].
    pub fn read(json: &[u8]) -> Result<Self, ArchitectureError> {
        let config: Config = serde_json::from_slice(json)?;
        let family = match config.architectures.first().map(String::as_str) {
            Some("LlamaForCausalLM" | "MistralForCausalLM") => Family::Llama,
            Some("Qwen2ForCausalLM") => Family::Qwen2,
            Some("Qwen3ForCausalLM") => Family::Qwen3,
            _ => return Err(ArchitectureError::Unknown(config.architectures)),
        };
        let heads = config.num_attention_heads;
        let kv_heads = config.num_key_value_heads.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let what = format!("{heads} attention heads share {kv_heads} key-value heads");
            return Err(ArchitectureError::Contradiction(what));
        }
        let head_dim = config.head_dim.unwrap_or(config.hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(ArchitectureError::Contradiction(format!("a head has {head_dim} dimensions")));
        }
        Ok(Self { family, config, head_dim })
    }

    /// Rows of the embedding.
    #[must_use]
    pub const fn vocab_size(&self) -> u32 {
        self.config.vocab_size
    }

    const fn kv_heads(&self) -> u32 {
        match self.config.num_key_value_heads {
            Some(heads) => heads,
            None => self.config.num_attention_heads,
        }
    }

    fn rope(&self) -> Rope {
        let config = &self.config;
        let mut rope = config.rope_parameters.clone().or_else(|| config.rope_scaling.clone()).unwrap_or_default();
        rope.rope_theta = rope.rope_theta.or(config.rope_theta);
        rope
    }

    /// The metadata that describe the architecture.
    ///
    /// # Errors
    /// [`ArchitectureError::Rope`] and [`ArchitectureError::Yarn`].
    pub fn metadata(&self) -> Result<Vec<(String, Value)>, ArchitectureError> {
        let config = &self.config;
        let rope = self.rope();
        let name = self.family.name();
        let number = |key: &str, value: u32| (format!("{name}.{key}"), Value::U32(value));
        #[allow(clippy::cast_possible_truncation, reason = "GGUF keeps these as 32-bit floats")]
        let float = |key: &str, value: f64| (format!("{name}.{key}"), Value::F32(value as f32));
        let mut metadata = vec![
            ("general.architecture".to_owned(), Value::Text(name.to_owned())),
            number("context_length", config.max_position_embeddings),
            number("embedding_length", config.hidden_size),
            number("block_count", config.num_hidden_layers),
            number("feed_forward_length", config.intermediate_size),
            number("attention.head_count", config.num_attention_heads),
            number("attention.head_count_kv", self.kv_heads()),
            number("attention.key_length", self.head_dim),
            number("attention.value_length", self.head_dim),
            number("rope.dimension_count", self.head_dim),
            number("vocab_size", config.vocab_size),
            float("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
            float("rope.freq_base", rope.rope_theta.unwrap_or(10_000.0)),
        ];
        match rope.rope_type.as_deref() {
            None | Some("default" | "llama3") => {}
            Some(kind @ ("linear" | "yarn")) => {
                metadata.push((format!("{name}.rope.scaling.type"), Value::Text(kind.to_owned())));
                metadata.push(float("rope.scaling.factor", rope.factor.unwrap_or(1.0)));
                if kind == "yarn" {
                    metadata.extend(self.yarn(&rope)?);
                } else if let Some(length) = rope.original_max_position_embeddings {
                    metadata.push(number("rope.scaling.original_context_length", length));
                }
            }
            Some(other) => return Err(ArchitectureError::Rope(other.to_owned())),
        }
        Ok(metadata)
    }

    /// What GGUF says of YaRN beside its factor.
    fn yarn(&self, rope: &Rope) -> Result<Vec<(String, Value)>, ArchitectureError> {
        if rope.truncate == Some(false) {
            return Err(ArchitectureError::Yarn("truncate: false"));
        }
        let key = |key: &str| format!("{}.rope.scaling.{key}", self.family.name());
        #[allow(clippy::cast_possible_truncation, reason = "GGUF keeps these as 32-bit floats")]
        let float = |name: &str, value: f64| (key(name), Value::F32(value as f32));
        let original = rope.original_max_position_embeddings.unwrap_or(self.config.max_position_embeddings);
        let mut metadata = vec![(key("original_context_length"), Value::U32(original))];
        metadata.extend(rope.beta_fast.map(|fast| float("yarn_beta_fast", fast)));
        metadata.extend(rope.beta_slow.map(|slow| float("yarn_beta_slow", slow)));
        // There it is multiplied with what follows from the factor, and here it stands in its place.
        let usual = 0.1 * rope.factor.unwrap_or(1.0).ln() + 1.0;
        metadata.extend(rope.attention_factor.map(|attention| float("attn_factor", attention / usual)));
        Ok(metadata)
    }

    /// What each frequency of the positions is divided by, where Llama 3.1's scaling is used.
    ///
    /// # Errors
    /// [`ArchitectureError::Contradiction`] if a number that it needs is missing.
    #[allow(clippy::cast_possible_truncation, reason = "GGUF keeps these as 32-bit floats")]
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>, ArchitectureError> {
        let rope = self.rope();
        if rope.rope_type.as_deref() != Some("llama3") {
            return Ok(None);
        }
        let need = |value: Option<f64>, name: &str| {
            value.ok_or_else(|| ArchitectureError::Contradiction(format!("rope type llama3 comes without {name}")))
        };
        let factor = need(rope.factor, "factor")?;
        let low = need(rope.low_freq_factor, "low_freq_factor")?;
        let high = need(rope.high_freq_factor, "high_freq_factor")?;
        let old = need(rope.original_max_position_embeddings.map(f64::from), "original_max_position_embeddings")?;
        let theta = rope.rope_theta.unwrap_or(10_000.0);
        let one = |index: u32| {
            let frequency = theta.powf(-f64::from(2 * index) / f64::from(self.head_dim));
            let length = std::f64::consts::TAU / frequency;
            let divisor = if length < old / high {
                1.0
            } else if length > old / low {
                factor
            } else {
                let smooth = (old / length - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            };
            divisor as f32
        };
        Ok(Some((0..self.head_dim / 2).map(one).collect()))
    }

    /// Where a tensor goes: its name in GGUF, and the heads whose rows are reordered, if it is a query or key that is.
    /// None for what GGUF does not keep.
    ///
    /// # Errors
    /// [`ArchitectureError::Tensor`].
    pub fn place(&self, name: &str) -> Result<Option<Place>, ArchitectureError> {
        let unknown = || ArchitectureError::Tensor(name.to_owned());
        let whole = |name: &str| Ok(Some(Place { name: name.to_owned(), reordered_heads: None }));
        match name {
            "model.embed_tokens.weight" => return whole("token_embd.weight"),
            "model.norm.weight" => return whole("output_norm.weight"),
            "lm_head.weight" => return whole("output.weight"),
            _ if name.ends_with(".rotary_emb.inv_freq") => return Ok(None),
            _ => {}
        }
        let (layer, rest) =
            name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
        let layer: u32 = layer.parse().map_err(|_| unknown())?;
        if layer >= self.config.num_hidden_layers {
            return Err(unknown());
        }
        let (module, kind) = rest.rsplit_once('.').ok_or_else(unknown)?;
        if kind != "weight" && kind != "bias" {
            return Err(unknown());
        }
        let reorders = self.family == Family::Llama;
        let (place, heads) = match module {
            "input_layernorm" => ("attn_norm", None),
            "self_attn.q_proj" => ("attn_q", reorders.then_some(self.config.num_attention_heads)),
            "self_attn.k_proj" => ("attn_k", reorders.then_some(self.kv_heads())),
            "self_attn.v_proj" => ("attn_v", None),
            "self_attn.o_proj" => ("attn_output", None),
            "self_attn.q_norm" => ("attn_q_norm", None),
            "self_attn.k_norm" => ("attn_k_norm", None),
            "post_attention_layernorm" => ("ffn_norm", None),
            "mlp.gate_proj" => ("ffn_gate", None),
            "mlp.up_proj" => ("ffn_up", None),
            "mlp.down_proj" => ("ffn_down", None),
            _ => return Err(unknown()),
        };
        Ok(Some(Place { name: format!("blk.{layer}.{place}.{kind}"), reordered_heads: heads }))
    }
}

/// Where a tensor goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name in GGUF.
    pub name: String,
    /// Its rows are those of so many heads, and within each the halves are interleaved.
    pub reordered_heads: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn config(more: Json) -> Vec<u8> {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 300,
            "rms_norm_eps": 1e-6, "rope_theta": 5000.0,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config.to_string().into_bytes()
    }

    fn value(architecture: &Architecture, key: &str) -> Option<Value> {
        architecture.metadata().unwrap().into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    #[test]
    fn both_forms_of_positions_in_a_configuration_are_read() {
        let old = Architecture::read(&config(json!({}))).unwrap();
        assert_eq!(value(&old, "llama.rope.freq_base"), Some(Value::F32(5000.0)));
        assert_eq!(value(&old, "llama.attention.key_length"), Some(Value::U32(16)));
        let new = json!({"rope_parameters": {"rope_theta": 7.0, "rope_type": "yarn", "factor": 4.0}});
        let new = Architecture::read(&config(new)).unwrap();
        assert_eq!(value(&new, "llama.rope.freq_base"), Some(Value::F32(7.0)));
        assert_eq!(value(&new, "llama.rope.scaling.type"), Some(Value::Text("yarn".to_owned())));
        let other = Architecture::read(&config(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}))).unwrap();
        assert!(matches!(other.metadata(), Err(ArchitectureError::Rope(kind)) if kind == "dynamic"));
    }

    #[test]
    fn yarn_is_told_whole_or_refused() {
        let yarn = |more: Json| {
            let mut rope = json!({"rope_type": "yarn", "factor": 4.0});
            rope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Architecture::read(&config(json!({"rope_scaling": rope}))).unwrap()
        };
        let plain = yarn(json!({}));
        assert_eq!(value(&plain, "llama.rope.scaling.original_context_length"), Some(Value::U32(256)));
        assert_eq!(value(&plain, "llama.rope.scaling.attn_factor"), None);
        let usual = 0.1 * 4f64.ln() + 1.0;
        let told = yarn(json!({"original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0,
            "attention_factor": 2.0 * usual}));
        assert_eq!(value(&told, "llama.rope.scaling.original_context_length"), Some(Value::U32(64)));
        assert_eq!(value(&told, "llama.rope.scaling.yarn_beta_fast"), Some(Value::F32(16.0)));
        assert_eq!(value(&told, "llama.rope.scaling.yarn_beta_slow"), Some(Value::F32(2.0)));
        assert_eq!(value(&told, "llama.rope.scaling.attn_factor"), Some(Value::F32(2.0)));
        let whole = yarn(json!({"truncate": false}));
        assert!(matches!(whole.metadata(), Err(ArchitectureError::Yarn("truncate: false"))));
    }

    #[test]
    fn high_frequencies_stay_and_low_ones_are_stretched() {
        let rope = json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128}});
        let factors = Architecture::read(&config(rope)).unwrap().rope_factors().unwrap().unwrap();
        assert_eq!((factors.len(), factors[0], factors[7]), (8, 1.0, 8.0));
        assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn query_and_key_are_reordered_for_llama_alone() {
        let name = "model.layers.1.self_attn.k_proj.weight";
        let llama = Architecture::read(&config(json!({}))).unwrap();
        let expected = Place { name: "blk.1.attn_k.weight".to_owned(), reordered_heads: Some(2) };
        assert_eq!(llama.place(name).unwrap(), Some(expected));
        let qwen = Architecture::read(&config(json!({"architectures": ["Qwen2ForCausalLM"]}))).unwrap();
        assert_eq!(qwen.place(name).unwrap().unwrap().reordered_heads, None);
    }

    #[test]
    fn what_cannot_be_exported_is_named() {
        let gpt = Architecture::read(&config(json!({"architectures": ["GPT2LMHeadModel"]})));
        assert!(matches!(gpt, Err(ArchitectureError::Unknown(names)) if names == ["GPT2LMHeadModel"]));
        let heads = Architecture::read(&config(json!({"num_key_value_heads": 3})));
        assert!(matches!(heads, Err(ArchitectureError::Contradiction(_))));
        let llama = Architecture::read(&config(json!({}))).unwrap();
        for name in ["model.layers.2.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.lora_A", "visual.x.weight"] {
            assert!(matches!(llama.place(name), Err(ArchitectureError::Tensor(_))), "{name}");
        }
    }
}
