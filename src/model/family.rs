//! Families of models whose tensors are known by name and shape.

use super::Config;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Llama, and what is shaped like it.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms on queries and keys.
    Qwen3,
    /// BERT.
    Bert,
    /// DistilBERT.
    DistilBert,
}

/// A side of a tensor, as the configuration gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Hidden,
    Vocab,
    Intermediate,
    /// All heads of queries.
    Queries,
    /// All heads of keys or values.
    Keys,
    Head,
    Positions,
    TokenTypes,
    Labels,
}

/// When a tensor must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    /// Where the attention has biases.
    AttentionBias,
    /// In models that produce text, unless the embedding serves as output.
    Output,
    /// In classifiers of whole texts.
    Classifier,
    /// It may be there.
    Maybe,
}

/// One tensor of a family, or one of each layer.
#[derive(Debug, Clone, Copy)]
struct Rule {
    name: &'static str,
    sides: &'static [Side],
    need: Need,
}

const fn rule(name: &'static str, sides: &'static [Side], need: Need) -> Rule {
    Rule { name, sides, need }
}

use Need::{Always, AttentionBias, Classifier, Maybe, Output};
use Side::{Head, Hidden, Intermediate, Keys, Labels, Positions, Queries, TokenTypes, Vocab};

const LLAMA_ONCE: &[Rule] = &[
    rule("embed_tokens.weight", &[Vocab, Hidden], Always),
    rule("norm.weight", &[Hidden], Always),
    rule("lm_head.weight", &[Vocab, Hidden], Output),
    rule("score.weight", &[Labels, Hidden], Classifier),
];
const LLAMA_LAYER: &[Rule] = &[
    rule("self_attn.q_proj.weight", &[Queries, Hidden], Always),
    rule("self_attn.k_proj.weight", &[Keys, Hidden], Always),
    rule("self_attn.v_proj.weight", &[Keys, Hidden], Always),
    rule("self_attn.o_proj.weight", &[Hidden, Queries], Always),
    rule("self_attn.q_proj.bias", &[Queries], AttentionBias),
    rule("self_attn.k_proj.bias", &[Keys], AttentionBias),
    rule("self_attn.v_proj.bias", &[Keys], AttentionBias),
    rule("mlp.gate_proj.weight", &[Intermediate, Hidden], Always),
    rule("mlp.up_proj.weight", &[Intermediate, Hidden], Always),
    rule("mlp.down_proj.weight", &[Hidden, Intermediate], Always),
    rule("input_layernorm.weight", &[Hidden], Always),
    rule("post_attention_layernorm.weight", &[Hidden], Always),
];
const QWEN3_LAYER: &[Rule] =
    &[rule("self_attn.q_norm.weight", &[Head], Always), rule("self_attn.k_norm.weight", &[Head], Always)];
const BERT_ONCE: &[Rule] = &[
    rule("embeddings.word_embeddings.weight", &[Vocab, Hidden], Always),
    rule("embeddings.position_embeddings.weight", &[Positions, Hidden], Always),
    rule("embeddings.token_type_embeddings.weight", &[TokenTypes, Hidden], Always),
    rule("embeddings.LayerNorm.weight", &[Hidden], Always),
    rule("embeddings.LayerNorm.bias", &[Hidden], Always),
    rule("pooler.dense.weight", &[Hidden, Hidden], Maybe),
    rule("pooler.dense.bias", &[Hidden], Maybe),
    rule("classifier.weight", &[Labels, Hidden], Classifier),
    rule("classifier.bias", &[Labels], Classifier),
];
const BERT_LAYER: &[Rule] = &[
    rule("attention.self.query.weight", &[Hidden, Hidden], Always),
    rule("attention.self.query.bias", &[Hidden], Always),
    rule("attention.self.key.weight", &[Hidden, Hidden], Always),
    rule("attention.self.key.bias", &[Hidden], Always),
    rule("attention.self.value.weight", &[Hidden, Hidden], Always),
    rule("attention.self.value.bias", &[Hidden], Always),
    rule("attention.output.dense.weight", &[Hidden, Hidden], Always),
    rule("attention.output.dense.bias", &[Hidden], Always),
    rule("attention.output.LayerNorm.weight", &[Hidden], Always),
    rule("attention.output.LayerNorm.bias", &[Hidden], Always),
    rule("intermediate.dense.weight", &[Intermediate, Hidden], Always),
    rule("intermediate.dense.bias", &[Intermediate], Always),
    rule("output.dense.weight", &[Hidden, Intermediate], Always),
    rule("output.dense.bias", &[Hidden], Always),
    rule("output.LayerNorm.weight", &[Hidden], Always),
    rule("output.LayerNorm.bias", &[Hidden], Always),
];
const DISTILBERT_ONCE: &[Rule] = &[
    rule("embeddings.word_embeddings.weight", &[Vocab, Hidden], Always),
    rule("embeddings.position_embeddings.weight", &[Positions, Hidden], Always),
    rule("embeddings.LayerNorm.weight", &[Hidden], Always),
    rule("embeddings.LayerNorm.bias", &[Hidden], Always),
    rule("pre_classifier.weight", &[Hidden, Hidden], Classifier),
    rule("pre_classifier.bias", &[Hidden], Classifier),
    rule("classifier.weight", &[Labels, Hidden], Classifier),
    rule("classifier.bias", &[Labels], Classifier),
];
const DISTILBERT_LAYER: &[Rule] = &[
    rule("attention.q_lin.weight", &[Hidden, Hidden], Always),
    rule("attention.q_lin.bias", &[Hidden], Always),
    rule("attention.k_lin.weight", &[Hidden, Hidden], Always),
    rule("attention.k_lin.bias", &[Hidden], Always),
    rule("attention.v_lin.weight", &[Hidden, Hidden], Always),
    rule("attention.v_lin.bias", &[Hidden], Always),
    rule("attention.out_lin.weight", &[Hidden, Hidden], Always),
    rule("attention.out_lin.bias", &[Hidden], Always),
    rule("sa_layer_norm.weight", &[Hidden], Always),
    rule("sa_layer_norm.bias", &[Hidden], Always),
    rule("ffn.lin1.weight", &[Intermediate, Hidden], Always),
    rule("ffn.lin1.bias", &[Intermediate], Always),
    rule("ffn.lin2.weight", &[Hidden, Intermediate], Always),
    rule("ffn.lin2.bias", &[Hidden], Always),
    rule("output_layer_norm.weight", &[Hidden], Always),
    rule("output_layer_norm.bias", &[Hidden], Always),
];

/// A tensor that a configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// Its name, without what the outermost class puts before it.
    pub name: String,
    /// Its shape; `None` for a side that the configuration does not give.
    pub shape: Vec<Option<u64>>,
    /// Whether it must be there.
    pub required: bool,
}

impl Family {
    /// The family that a configuration is of.
    pub fn of(config: &Config) -> Option<Self> {
        Some(match config.model_type()? {
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "bert" => Self::Bert,
            "distilbert" => Self::DistilBert,
            _ => return None,
        })
    }

    /// What names of tensors may begin with: the attribute by which a class for a task holds the model itself.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => "model.",
            Self::Bert => "bert.",
            Self::DistilBert => "distilbert.",
        }
    }

    /// What names of the tensors of layers begin with, before the layer's number.
    pub(super) const fn layers(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => "layers.",
            Self::Bert => "encoder.layer.",
            Self::DistilBert => "transformer.layer.",
        }
    }

    /// Whether the output uses the embedding's weights where the configuration does not say.
    const fn ties_embeddings(self) -> bool {
        matches!(self, Self::Bert | Self::DistilBert)
    }

    const fn rules(self) -> (&'static [Rule], &'static [Rule], &'static [Rule]) {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 => (LLAMA_ONCE, LLAMA_LAYER, &[]),
            Self::Qwen3 => (LLAMA_ONCE, LLAMA_LAYER, QWEN3_LAYER),
            Self::Bert => (BERT_ONCE, BERT_LAYER, &[]),
            Self::DistilBert => (DISTILBERT_ONCE, DISTILBERT_LAYER, &[]),
        }
    }

    /// Every tensor that the configuration asks for; the layers at most up to `layers`.
    pub(super) fn expected(self, config: &Config, layers: u64) -> Vec<Expected> {
        let (once, each, also) = self.rules();
        let make = |prefix: &str, rule: &Rule| Expected {
            name: format!("{prefix}{}", rule.name),
            shape: rule.sides.iter().map(|&side| self.side(side, config)).collect(),
            required: self.is_required(rule, config),
        };
        let mut expected: Vec<Expected> = once.iter().map(|rule| make("", rule)).collect();
        for number in 0..config.layers().unwrap_or(0).min(layers) {
            let prefix = format!("{}{number}.", self.layers());
            expected.extend(each.iter().chain(also).map(|rule| make(&prefix, rule)));
        }
        expected
    }

    /// How many elements the tensors have that the configuration asks for, if it gives every side.
    pub(super) fn elements(self, config: &Config) -> Option<u64> {
        /// More layers than any model has.
        const LAYERS_MAX: u64 = 10_000;
        let expected = self.expected(config, LAYERS_MAX);
        let sizes = expected
            .iter()
            .filter(|tensor| tensor.required)
            .map(|tensor| tensor.shape.iter().try_fold(1_u64, |product, side| product.checked_mul((*side)?)));
        sizes.sum()
    }

    fn side(self, side: Side, config: &Config) -> Option<u64> {
        let times = |heads: Option<u64>| heads?.checked_mul(config.head_dim()?);
        match side {
            Side::Hidden => config.hidden(),
            Side::Vocab => config.vocab(),
            Side::Intermediate => config.intermediate(),
            Side::Queries => times(config.heads()),
            Side::Keys => times(config.kv_heads()),
            Side::Head => config.head_dim(),
            Side::Positions => config.max_positions(),
            Side::TokenTypes => config.token_types(),
            Side::Labels => Some(config.labels()),
        }
    }

    fn is_required(self, rule: &Rule, config: &Config) -> bool {
        let class = config.architecture().unwrap_or_default();
        match rule.need {
            Need::Always => true,
            Need::Maybe => false,
            Need::AttentionBias => self == Self::Qwen2 || config.attention_bias(),
            Need::Output => {
                class.ends_with("ForCausalLM") && !config.ties_embeddings().unwrap_or_else(|| self.ties_embeddings())
            }
            Need::Classifier => class.ends_with("ForSequenceClassification"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn llama_7b_has_the_parameters_that_it_is_named_after() {
        let llama = config(
            r#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":4096,"num_attention_heads":32,
                "num_hidden_layers":32,"intermediate_size":11008,"vocab_size":32000,"tie_word_embeddings":false}"#,
        );
        assert_eq!(Family::of(&llama).unwrap().elements(&llama), Some(6_738_415_616));
        let qwen = config(
            r#"{"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"hidden_size":896,"num_attention_heads":14,
                "num_key_value_heads":2,"num_hidden_layers":24,"intermediate_size":4864,"vocab_size":151936,
                "tie_word_embeddings":true}"#,
        );
        assert_eq!(Family::of(&qwen).unwrap().elements(&qwen), Some(494_032_768));
    }

    #[test]
    fn a_side_that_is_not_given_is_not_made_up() {
        let bert = config(r#"{"model_type":"bert","hidden_size":4,"num_hidden_layers":1}"#);
        let expected = Family::Bert.expected(&bert, 9);
        assert_eq!(
            expected.iter().find(|t| t.name.ends_with("word_embeddings.weight")).unwrap().shape,
            [None, Some(4)]
        );
        assert_eq!(Family::Bert.elements(&bert), None);
        assert_eq!(Family::of(&config(r#"{"model_type":"mamba"}"#)), None);
    }
}
