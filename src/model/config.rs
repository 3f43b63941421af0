//! `config.json`: what transformers writes about a model.

use serde_json::Value;

/// Longest configuration that is read, in bytes.
const LENGTH_MAX: usize = 16 << 20;

/// A model's configuration. Names differ between families; each accessor knows those that are in use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    whole: Value,
}

/// Why a configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is JSON, but no table.
    #[error("it is no table of keys and values")]
    NoTable,
    /// It is longer than any configuration.
    #[error("it is longer than 16 MiB")]
    TooLong,
}

impl Config {
    /// Decodes `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        if json.len() > LENGTH_MAX {
            return Err(ConfigError::TooLong);
        }
        let whole: Value = serde_json::from_slice(json)?;
        if whole.is_object() { Ok(Self { whole }) } else { Err(ConfigError::NoTable) }
    }

    /// The class that loads it: the first of `architectures`.
    pub fn architecture(&self) -> Option<&str> {
        self.whole.get("architectures")?.get(0)?.as_str()
    }

    /// `model_type`.
    pub fn model_type(&self) -> Option<&str> {
        self.whole.get("model_type")?.as_str()
    }

    /// Type of the weights that it was saved with.
    pub fn dtype(&self) -> Option<&str> {
        self.value("torch_dtype").or_else(|| self.value("dtype"))?.as_str()
    }

    /// Size of the hidden states.
    pub fn hidden(&self) -> Option<u64> {
        self.number(&["hidden_size", "dim", "n_embd", "d_model"])
    }

    /// Number of layers.
    pub fn layers(&self) -> Option<u64> {
        self.number(&["num_hidden_layers", "n_layers", "n_layer", "num_layers"])
    }

    /// Number of attention heads.
    pub fn heads(&self) -> Option<u64> {
        self.number(&["num_attention_heads", "n_heads", "n_head"])
    }

    /// Number of heads of keys and values: as many as heads where it is not said.
    pub fn kv_heads(&self) -> Option<u64> {
        self.number(&["num_key_value_heads", "n_head_kv"]).or_else(|| self.heads())
    }

    /// Size of one head.
    pub fn head_dim(&self) -> Option<u64> {
        let derived = || self.hidden()?.checked_div(self.heads()?);
        self.number(&["head_dim"]).or_else(derived)
    }

    /// Number of tokens that the embedding knows.
    pub fn vocab(&self) -> Option<u64> {
        self.number(&["vocab_size"])
    }

    /// Size of the inner states of the feed-forward part.
    pub fn intermediate(&self) -> Option<u64> {
        self.number(&["intermediate_size", "hidden_dim", "n_inner", "ffn_dim"])
    }

    /// Longest sequence, in tokens.
    pub fn max_positions(&self) -> Option<u64> {
        self.number(&["max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"])
    }

    /// Number of kinds of tokens (BERT's segments).
    pub fn token_types(&self) -> Option<u64> {
        self.number(&["type_vocab_size"])
    }

    /// Number of classes that a classifier tells apart; 2 where nothing is said, as in transformers.
    pub fn labels(&self) -> u64 {
        let named = || self.whole.get("id2label")?.as_object().map(|labels| labels.len() as u64);
        self.number(&["num_labels"]).or_else(named).unwrap_or(2)
    }

    /// Whether the output uses the embedding's weights; `None` where the configuration leaves it to the family.
    pub fn ties_embeddings(&self) -> Option<bool> {
        self.value("tie_word_embeddings")?.as_bool()
    }

    /// Whether the attention has biases.
    pub fn attention_bias(&self) -> bool {
        self.value("attention_bias").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Method and bits of a quantization that the weights were saved with.
    pub fn quantization(&self) -> Option<(String, Option<u64>)> {
        let table = self.whole.get("quantization_config").filter(|table| table.is_object())?;
        let flag = |key: &str| table.get(key).and_then(Value::as_bool).unwrap_or(false);
        let method = table.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let bits = match (table.get("bits").and_then(Value::as_u64), flag("load_in_4bit"), flag("load_in_8bit")) {
            (Some(bits), ..) => Some(bits),
            (None, true, _) => Some(4),
            (None, _, true) => Some(8),
            _ if method.contains("fp8") => Some(8),
            _ => None,
        };
        Some((method.to_owned(), bits))
    }

    /// What besides text the model takes in: `vision` and `audio`.
    pub fn other_senses(&self) -> Vec<&'static str> {
        let has = |key: &str| self.whole.get(key).is_some_and(Value::is_object);
        let class = self.architecture().unwrap_or_default();
        let starts = |names: &[&str]| names.iter().any(|name| class.starts_with(name));
        let vision = has("vision_config") || starts(&["CLIP", "ViT", "Siglip", "Llava", "DeiT", "Dinov2"]);
        let audio = has("audio_config") || starts(&["Whisper", "Wav2Vec2", "Hubert", "Speech"]);
        [(vision, "vision"), (audio, "audio")].into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
    }

    /// Code beside the weights that transformers would load (`auto_map`), by class.
    pub fn own_code(&self) -> Vec<String> {
        let mut code = Vec::new();
        for entry in self.whole.get("auto_map").and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
            let entries = entry.as_array().map_or(std::slice::from_ref(entry), Vec::as_slice);
            code.extend(entries.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        code.sort();
        code.dedup();
        code
    }

    fn number(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.value(name)?.as_u64())
    }

    /// A value of the whole or of the part about text, which models of several senses have.
    fn value(&self, name: &str) -> Option<&Value> {
        self.whole.get(name).or_else(|| self.whole.get("text_config")?.get(name)).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn each_familys_names_are_known() {
        let llama = config(r#"{"hidden_size":64,"num_attention_heads":4,"num_hidden_layers":2,"vocab_size":99}"#);
        assert_eq!((llama.hidden(), llama.head_dim(), llama.kv_heads()), (Some(64), Some(16), Some(4)));
        let distilbert = config(r#"{"dim":8,"n_heads":2,"n_layers":1,"hidden_dim":32,"max_position_embeddings":16}"#);
        assert_eq!((distilbert.hidden(), distilbert.layers(), distilbert.intermediate()), (Some(8), Some(1), Some(32)));
        let many = config(r#"{"text_config":{"hidden_size":7,"torch_dtype":"bfloat16"},"vision_config":{}}"#);
        assert_eq!((many.hidden(), many.dtype(), many.other_senses()), (Some(7), Some("bfloat16"), vec!["vision"]));
    }

    #[test]
    fn labels_quantization_and_code_are_read() {
        assert_eq!(config(r#"{"id2label":{"0":"a","1":"b","2":"c"}}"#).labels(), 3);
        let four = config(r#"{"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true}}"#);
        assert_eq!(four.quantization(), Some(("bitsandbytes".to_owned(), Some(4))));
        let code = config(r#"{"auto_map":{"AutoModel":"modeling_x.X","AutoTokenizer":["tok.T",null]}}"#);
        assert_eq!(code.own_code(), ["modeling_x.X", "tok.T"]);
    }

    #[test]
    fn nonsense_is_refused_and_odd_values_are_passed_over() {
        assert!(matches!(Config::parse(b"<html>"), Err(ConfigError::Json(_))));
        assert!(matches!(Config::parse(b"[]"), Err(ConfigError::NoTable)));
        assert_eq!(config(r#"{"hidden_size":-1,"vocab_size":"many","num_attention_heads":0}"#).head_dim(), None);
    }
}
