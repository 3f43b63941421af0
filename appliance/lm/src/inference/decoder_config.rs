//! `config.json` of decoders: Llama, Mistral, Qwen2 and Qwen3.

use super::{
    error::LoadError,
    json_file::{MAX_CONFIG, read_json},
};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

const SUPPORTED: &str = "decoders are llama, mistral, qwen2 and qwen3";
/// Largest size that is believed.
const LARGEST: usize = 1 << 24;

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// `model_type`.
    pub family: Family,
    /// Tokens.
    pub vocabulary: usize,
    /// Values of a row.
    pub hidden: usize,
    /// Values between the two layers of a feed-forward block.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Values of a head.
    pub head_width: usize,
    /// What keeps norms from dividing by zero.
    pub norm_epsilon: f32,
    /// Positions.
    pub rope: Rope,
    /// Most positions.
    pub context: usize,
    /// Whether the output layer is the table of embeddings.
    pub tied: bool,
    /// For each layer: how far back it sees, if not to the beginning.
    pub windows: Vec<Option<usize>>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
}

/// The families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3: norms of queries and keys.
    Qwen3,
}

/// Rotary position embeddings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f32,
    /// How they are stretched beyond what the model was first trained on.
    pub scaling: Scaling,
}

/// How wavelengths are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All by one factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1's: long ones only.
    Llama3 {
        /// The factor of long ones.
        factor: f32,
        /// Long are those that fit fewer times than this into the original context.
        low: f32,
        /// Short are those that fit more often than this.
        high: f32,
        /// The original context.
        original: f32,
    },
    /// YaRN.
    Yarn {
        /// The factor of long ones.
        factor: f32,
        /// What cosines and sines are multiplied by.
        attention: f32,
        /// Rotations at the original context above which a wavelength is short.
        fast: f32,
        /// Rotations below which it is long.
        slow: f32,
        /// The original context.
        original: f32,
        /// Whether the borders between short and long are rounded.
        truncate: bool,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_epsilon")]
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default = "default_window")]
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    eos_token_id: Option<Ends>,
    quantization_config: Option<Value>,
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    truncate: Option<bool>,
    partial_rotary_factor: Option<f32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ends {
    One(u32),
    Several(Vec<u32>),
}

#[derive(Deserialize)]
struct Generation {
    eos_token_id: Option<Ends>,
}

const fn default_epsilon() -> f32 {
    1e-6
}

/// What Transformers takes where a configuration says nothing; those without a window say `null`.
const fn default_window() -> Option<usize> {
    Some(4096)
}

impl DecoderConfig {
    /// Reads `config.json` and, for the tokens that end a text, `generation_config.json` of a directory.
    ///
    /// # Errors
    /// Where one cannot be read, contradicts itself, or is of another family.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let path = &directory.join("config.json");
        let raw: Raw = read_json(path, MAX_CONFIG)?;
        let mut config = raw.check(path)?;
        let generation = directory.join("generation_config.json");
        if generation.exists() {
            let generation: Generation = read_json(&generation, MAX_CONFIG)?;
            config.ends.extend(generation.eos_token_id.into_iter().flat_map(Ends::list));
        }
        config.ends.sort_unstable();
        config.ends.dedup();
        Ok(config)
    }

    /// Checks what sizes must hold among themselves.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check(&self, path: &Path) -> Result<(), LoadError> {
        let sizes = [self.vocabulary, self.hidden, self.intermediate, self.layers, self.heads, self.key_heads];
        if !sizes.iter().chain(&[self.head_width, self.context]).all(|size| (1..=LARGEST).contains(size)) {
            return Err(LoadError::damaged(path, "a size in it is zero or beyond reason"));
        }
        if !self.heads.is_multiple_of(self.key_heads) || !self.head_width.is_multiple_of(2) {
            let reason = format!(
                "{} heads, {} key heads and a head of {} values do not go together",
                self.heads, self.key_heads, self.head_width
            );
            return Err(LoadError::damaged(path, reason));
        }
        Ok(())
    }
}

impl Raw {
    fn check(self, path: &Path) -> Result<DecoderConfig, LoadError> {
        let unsupported =
            |what: String| LoadError::Unsupported { path: path.to_path_buf(), what, supported: SUPPORTED };
        let family = match self.model_type.as_str() {
            "llama" => Family::Llama,
            "mistral" => Family::Mistral,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            other => return Err(unsupported(format!("model type `{other}`"))),
        };
        if let Some(other) = self.hidden_act.as_deref().filter(|act| !["silu", "swish"].contains(act)) {
            return Err(unsupported(format!("activation `{other}`")));
        }
        if self.quantization_config.as_ref().is_some_and(|config| !config.is_null()) {
            return Err(unsupported("a checkpoint quantised for another engine".to_owned()));
        }
        let heads = self.num_attention_heads;
        let rope = self.rope(path)?;
        let config = DecoderConfig {
            family,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            key_heads: self.num_key_value_heads.unwrap_or(heads),
            head_width: self.head_dim.unwrap_or(if family == Family::Qwen3 {
                128
            } else {
                self.hidden_size / heads.max(1)
            }),
            norm_epsilon: self.rms_norm_eps,
            rope,
            context: self.max_position_embeddings,
            tied: self.tie_word_embeddings,
            windows: Vec::new(),
            ends: Vec::new(),
        };
        config.check(path)?;
        let windows = self.windows(family, path)?;
        Ok(DecoderConfig { windows, ends: self.eos_token_id.into_iter().flat_map(Ends::list).collect(), ..config })
    }

    fn windows(&self, family: Family, path: &Path) -> Result<Vec<Option<usize>>, LoadError> {
        let window = match family {
            Family::Llama => None,
            Family::Mistral => self.sliding_window,
            Family::Qwen2 | Family::Qwen3 => self.sliding_window.filter(|_| self.use_sliding_window == Some(true)),
        };
        let first = if family == Family::Mistral { 0 } else { self.max_window_layers.unwrap_or(28) };
        let Some(types) = &self.layer_types else {
            return Ok((0..self.num_hidden_layers).map(|layer| window.filter(|_| layer >= first)).collect());
        };
        if types.len() != self.num_hidden_layers {
            let reason = format!("`layer_types` names {} layers of {}", types.len(), self.num_hidden_layers);
            return Err(LoadError::damaged(path, reason));
        }
        let each = types.iter().map(|kind| match (kind.as_str(), self.sliding_window) {
            ("full_attention", _) => Ok(None),
            ("sliding_attention", Some(window)) => Ok(Some(window)),
            (other, _) => Err(LoadError::damaged(path, format!("layer type `{other}` is unknown or has no window"))),
        });
        each.collect()
    }

    fn rope(&self, path: &Path) -> Result<Rope, LoadError> {
        let raw = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = raw.and_then(|raw| raw.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let Some(raw) = raw else { return Ok(Rope { theta, scaling: Scaling::None }) };
        let missing = |what: &str| LoadError::damaged(path, format!("the scaling of positions lacks `{what}`"));
        let factor = || raw.factor.filter(|factor| *factor >= 1.0).ok_or_else(|| missing("factor"));
        let original = raw.original_max_position_embeddings.unwrap_or(self.max_position_embeddings) as f32;
        let scaling = match raw.rope_type.as_deref().unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: factor()? },
            "llama3" => Scaling::Llama3 {
                factor: factor()?,
                low: raw.low_freq_factor.ok_or_else(|| missing("low_freq_factor"))?,
                high: raw.high_freq_factor.ok_or_else(|| missing("high_freq_factor"))?,
                original,
            },
            "yarn" => {
                let factor = factor()?;
                Scaling::Yarn {
                    factor,
                    attention: raw.attention_factor.unwrap_or(0.1 * factor.ln() + 1.0),
                    fast: raw.beta_fast.unwrap_or(32.0),
                    slow: raw.beta_slow.unwrap_or(1.0),
                    original,
                    truncate: raw.truncate.unwrap_or(true),
                }
            }
            other => {
                return Err(LoadError::Unsupported {
                    path: path.to_path_buf(),
                    what: format!("scaling of positions by `{other}`"),
                    supported: "they are default, linear, llama3 and yarn",
                });
            }
        };
        if raw.partial_rotary_factor.is_some_and(|factor| (factor - 1.0).abs() > f32::EPSILON) {
            return Err(LoadError::damaged(path, "a part of each head without positions is not supported"));
        }
        Ok(Rope { theta, scaling })
    }
}

impl Ends {
    fn list(self) -> Vec<u32> {
        match self {
            Self::One(end) => vec![end],
            Self::Several(ends) => ends,
        }
    }
}
