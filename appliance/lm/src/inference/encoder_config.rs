//! `config.json` of encoders: BERT, DistilBERT, RoBERTa and XLM-RoBERTa.

use super::{
    error::LoadError,
    json_file::{MAX_CONFIG, read_json},
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

const SUPPORTED: &str = "encoders are bert, distilbert, roberta and xlm-roberta";
/// Most layers, heads or values in a row that are believed.
const LARGEST: usize = 1 << 20;

/// The families, which differ in names and in small things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT.
    Bert,
    /// DistilBERT: no types of tokens, no pooler.
    DistilBert,
    /// RoBERTa: positions count from after the padding's index.
    Roberta,
}

/// The function between the two layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// By the error function.
    Gelu,
    /// By its approximation with tanh.
    GeluTanh,
    /// The positive part.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
}

/// What a classifier's numbers become. Transformers' pipeline decides in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Probabilities that sum to one: a text has one class.
    Softmax,
    /// A probability of each: a text may have several classes, or there is one only.
    Sigmoid,
    /// Nothing: they are what a regression found.
    Raw,
}

/// The shape of an encoder.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// Which family.
    pub family: Family,
    /// Tokens.
    pub vocabulary: usize,
    /// Values of a row.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of each.
    pub heads: usize,
    /// Values between the two layers of a feed-forward block.
    pub intermediate: usize,
    /// The function between them.
    pub activation: Activation,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Types of tokens.
    pub types: usize,
    /// What keeps norms from dividing by zero.
    pub norm_epsilon: f32,
    /// Index that padding has; RoBERTa's positions begin after it.
    pub padding: usize,
    /// Names of the classes, if it classifies.
    pub labels: Vec<String>,
    /// What becomes of the classes' numbers.
    pub scores: Scores,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "activation")]
    hidden_act: String,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    id2label: BTreeMap<usize, String>,
    #[serde(default)]
    problem_type: Option<String>,
}

const fn default_epsilon() -> f32 {
    1e-12
}

impl EncoderConfig {
    /// Reads `config.json` of a directory.
    ///
    /// # Errors
    /// Where it cannot be read, contradicts itself, or is of another family.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let path = &directory.join("config.json");
        let raw: Raw = read_json(path, MAX_CONFIG)?;
        let unsupported = |what: String| LoadError::Unsupported { path: path.clone(), what, supported: SUPPORTED };
        let family = match raw.model_type.as_str() {
            "bert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            "roberta" | "xlm-roberta" => Family::Roberta,
            other => return Err(unsupported(format!("model type `{other}`"))),
        };
        let activation = match raw.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            other => return Err(unsupported(format!("activation `{other}`"))),
        };
        if let Some(kind) = raw.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(unsupported(format!("position embedding `{kind}`")));
        }
        let sizes = [
            raw.vocab_size,
            raw.hidden_size,
            raw.num_hidden_layers,
            raw.num_attention_heads,
            raw.intermediate_size,
            raw.max_position_embeddings,
        ];
        if !sizes.iter().all(|size| (1..=LARGEST).contains(size)) || raw.type_vocab_size > LARGEST {
            return Err(LoadError::damaged(path, "a size in it is zero or beyond reason"));
        }
        if !raw.hidden_size.is_multiple_of(raw.num_attention_heads) {
            let reason = format!("{} values do not divide among {} heads", raw.hidden_size, raw.num_attention_heads);
            return Err(LoadError::damaged(path, reason));
        }
        let labels: Vec<String> = raw.id2label.values().cloned().collect();
        if !raw.id2label.keys().copied().eq(0..labels.len()) {
            return Err(LoadError::damaged(path, "the classes in `id2label` are not numbered from 0 without a gap"));
        }
        // Transformers counts two classes where a configuration names none.
        let labels = if labels.is_empty() { vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()] } else { labels };
        let scores = match raw.problem_type.as_deref() {
            Some("regression") => Scores::Raw,
            Some("multi_label_classification") => Scores::Sigmoid,
            _ if labels.len() == 1 => Scores::Sigmoid,
            _ => Scores::Softmax,
        };
        Ok(Self {
            family,
            vocabulary: raw.vocab_size,
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            intermediate: raw.intermediate_size,
            activation,
            positions: raw.max_position_embeddings,
            types: if family == Family::DistilBert { 0 } else { raw.type_vocab_size },
            norm_epsilon: raw.layer_norm_eps,
            padding: raw.pad_token_id.unwrap_or(if family == Family::Roberta { 1 } else { 0 }),
            labels,
            scores,
        })
    }

    /// Most tokens of a text.
    pub const fn longest(&self) -> usize {
        match self.family {
            Family::Roberta => self.positions.saturating_sub(self.padding + 1),
            Family::Bert | Family::DistilBert => self.positions,
        }
    }
}
