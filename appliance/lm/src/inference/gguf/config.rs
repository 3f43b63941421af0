//! The shape of a model, from the metadata of its file.

use super::{GgufFile, SUPPORTED, Value};
use crate::inference::{
    decoder_config::{DecoderConfig, Family, Rope, Scaling},
    error::LoadError,
    gguf_tokenizer::CONTROL,
    rotation::Rotation,
};

/// Tokens that end a turn or a text wherever a file has them as control tokens, as llama.cpp takes them: many files name one
/// that ends a text and not the one that ends a turn.
const KNOWN_ENDS: [&str; 8] =
    ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "</s>"];

impl GgufFile {
    /// The shape of the model.
    ///
    /// # Errors
    /// Where it is not said, or of another family.
    pub fn config(&self) -> Result<DecoderConfig, LoadError> {
        let family = match self.architecture.as_str() {
            // Mistral's models are written as llama as well.
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            other => {
                return Err(LoadError::Unsupported {
                    path: self.path.clone(),
                    what: format!("architecture `{other}`"),
                    supported: SUPPORTED,
                });
            }
        };
        let (hidden, heads, layers) =
            (self.size("embedding_length")?, self.size("attention.head_count")?, self.size("block_count")?);
        let head_width = self.size("attention.key_length").unwrap_or(hidden / heads.max(1));
        let vocabulary = self.tensors.get("token_embd.weight").and_then(|stored| stored.shape.first());
        let context = self.size("context_length")?;
        let config = DecoderConfig {
            family,
            vocabulary: vocabulary.copied().unwrap_or_default(),
            hidden,
            intermediate: self.size("feed_forward_length")?,
            layers,
            heads,
            key_heads: self.size("attention.head_count_kv").unwrap_or(heads),
            head_width,
            norm_epsilon: self.number("attention.layer_norm_rms_epsilon").unwrap_or(1e-6),
            rope: self.rope(head_width, context)?,
            context,
            tied: !self.tensors.contains_key("output.weight"),
            windows: vec![self.size("attention.sliding_window").ok().filter(|window| *window > 0); layers.min(1 << 16)],
            ends: self.ends(),
        };
        config.check(&self.path)?;
        Ok(config)
    }

    /// The tokens that end a text: those that the file says, and those whose names say it.
    fn ends(&self) -> Vec<u32> {
        let said = ["eos_token_id", "eot_token_id", "eom_token_id"].into_iter().filter_map(|name| {
            match self.get(&format!("tokenizer.ggml.{name}")) {
                Some(Value::Integer(token)) => u32::try_from(*token).ok(),
                _ => None,
            }
        });
        let list = |name: &str| match self.get(&format!("tokenizer.ggml.{name}")) {
            Some(Value::List(list)) => list.as_slice(),
            _ => &[],
        };
        let named = (0..).zip(list("tokens")).zip(list("token_type")).filter_map(|((id, token), kind)| {
            let Value::Text(token) = token else { return None };
            (*kind == Value::Integer(CONTROL) && KNOWN_ENDS.contains(&token.as_str())).then_some(id)
        });
        let mut ends: Vec<u32> = Vec::new();
        for end in said.chain(named) {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        ends
    }

    fn rope(&self, head_width: usize, context: usize) -> Result<Rope, LoadError> {
        let theta = self.number("rope.freq_base").unwrap_or(10_000.0);
        let plain = Rope { theta, scaling: Scaling::None };
        let unsupported = |what: &str| LoadError::Unsupported {
            path: self.path.clone(),
            what: what.to_owned(),
            supported: "positions are scaled not at all, linearly, as Llama 3 does, or by YaRN",
        };
        if self.number("rope.dimension_count").is_some_and(|count| count as usize != head_width) {
            return Err(unsupported("a part of each head without positions"));
        }
        if let Some(stored) = self.tensors.get("rope_freqs.weight") {
            let factors = self.values("rope_freqs.weight", stored)?;
            // What Llama 3 was made with; the file has the result only.
            let factor = factors.iter().copied().fold(1.0, f32::max);
            let scaling = Scaling::Llama3 { factor, low: 1.0, high: 4.0, original: 8192.0 };
            let (expected, plain) =
                (Rotation::new(Rope { theta, scaling }, head_width), Rotation::new(plain, head_width));
            if !expected.is_divided(&plain, &factors) {
                return Err(unsupported("a scaling of each wavelength by itself"));
            }
            return Ok(Rope { theta, scaling });
        }
        let kind = match self.own("rope.scaling.type") {
            None => return Ok(plain),
            Some(Value::Text(kind)) => kind.as_str(),
            Some(_) => "",
        };
        let factor = self.number("rope.scaling.factor").filter(|factor| *factor >= 1.0).unwrap_or(1.0);
        let scaling = match kind {
            "none" => Scaling::None,
            "linear" => Scaling::Linear { factor },
            "yarn" => {
                let or_one = |name: &str| self.number(name).unwrap_or(1.0);
                if (or_one("rope.scaling.yarn_ext_factor") - 1.0).abs() > f32::EPSILON {
                    return Err(unsupported("YaRN with another part of stretched positions"));
                }
                let attention = or_one("rope.scaling.attn_factor") * or_one("rope.scaling.yarn_attn_factor");
                Scaling::Yarn {
                    factor,
                    attention: attention * (0.1 * factor.ln() + 1.0),
                    fast: self.number("rope.scaling.yarn_beta_fast").unwrap_or(32.0),
                    slow: self.number("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
                    original: self.number("rope.scaling.original_context_length").unwrap_or(context as f32),
                    truncate: true,
                }
            }
            _ => return Err(unsupported("another scaling of positions")),
        };
        Ok(Rope { theta, scaling })
    }
}
