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
    /// Gemma: one matrix for input and output.
    Gemma,
    /// Gemma 2: norms before and after each part of a layer.
    Gemma2,
    /// Gemma 3 for text alone: those, and norms on queries and keys.
    Gemma3,
    /// Phi-3: one matrix for queries, keys and values, one for gate and way up.
    Phi3,
    /// Cohere's Command R and Aya: one norm a layer.
    Cohere,
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
    /// All heads of queries, keys and values.
    Attention,
    /// Gate and way up.
    GateAndUp,
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
use Side::{Attention, GateAndUp, Head, Hidden, Intermediate, Keys, Labels, Positions, Queries, TokenTypes, Vocab};

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
];
const PHI3_LAYER: &[Rule] = &[
    rule("self_attn.qkv_proj.weight", &[Attention, Hidden], Always),
    rule("self_attn.o_proj.weight", &[Hidden, Queries], Always),
    rule("mlp.gate_up_proj.weight", &[GateAndUp, Hidden], Always),
    rule("mlp.down_proj.weight", &[Hidden, Intermediate], Always),
];
const NORM_BEFORE: &[Rule] = &[rule("input_layernorm.weight", &[Hidden], Always)];
const NORM_BETWEEN: &[Rule] = &[rule("post_attention_layernorm.weight", &[Hidden], Always)];
const NORMS_AROUND: &[Rule] = &[
    rule("pre_feedforward_layernorm.weight", &[Hidden], Always),
    rule("post_feedforward_layernorm.weight", &[Hidden], Always),
];
const NORMS_OF_HEADS: &[Rule] =
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
            "gemma" => Self::Gemma,
            "gemma2" => Self::Gemma2,
            "gemma3_text" => Self::Gemma3,
            "phi3" => Self::Phi3,
            "cohere" => Self::Cohere,
            "bert" => Self::Bert,
            "distilbert" => Self::DistilBert,
            _ => return None,
        })
    }

    /// What names of tensors may begin with: the attribute by which a class for a task holds the model itself.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::DistilBert => "distilbert.",
            _ => "model.",
        }
    }

    /// What names of the tensors of layers begin with, before the layer's number.
    pub(super) const fn layers(self) -> &'static str {
        match self {
            Self::Bert => "encoder.layer.",
            Self::DistilBert => "transformer.layer.",
            _ => "layers.",
        }
    }

    /// Whether the output uses the embedding's weights where the configuration does not say.
    const fn ties_embeddings(self) -> bool {
        matches!(self, Self::Bert | Self::DistilBert | Self::Gemma | Self::Gemma2 | Self::Gemma3 | Self::Cohere)
    }

    /// The tensors of the whole, and those of each layer.
    const fn rules(self) -> (&'static [Rule], &'static [&'static [Rule]]) {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Gemma => {
                (LLAMA_ONCE, &[LLAMA_LAYER, NORM_BEFORE, NORM_BETWEEN])
            }
            Self::Qwen3 => (LLAMA_ONCE, &[LLAMA_LAYER, NORM_BEFORE, NORM_BETWEEN, NORMS_OF_HEADS]),
            Self::Gemma2 => (LLAMA_ONCE, &[LLAMA_LAYER, NORM_BEFORE, NORM_BETWEEN, NORMS_AROUND]),
            Self::Gemma3 => (LLAMA_ONCE, &[LLAMA_LAYER, NORM_BEFORE, NORM_BETWEEN, NORMS_AROUND, NORMS_OF_HEADS]),
            Self::Phi3 => (LLAMA_ONCE, &[PHI3_LAYER, NORM_BEFORE, NORM_BETWEEN]),
            Self::Cohere => (LLAMA_ONCE, &[LLAMA_LAYER, NORM_BEFORE]),
            Self::Bert => (BERT_ONCE, &[BERT_LAYER]),
            Self::DistilBert => (DISTILBERT_ONCE, &[DISTILBERT_LAYER]),
        }
    }

    /// Every tensor that the configuration asks for; the layers at most up to `layers`.
    pub(super) fn expected(self, config: &Config, layers: u64) -> Vec<Expected> {
        let (once, each) = self.rules();
        let make = |prefix: &str, rule: &Rule| Expected {
            name: format!("{prefix}{}", rule.name),
            shape: rule.sides.iter().map(|&side| self.side(side, config)).collect(),
            required: self.is_required(rule, config),
        };
        let mut expected: Vec<Expected> = once.iter().map(|rule| make("", rule)).collect();
        for number in 0..config.layers().unwrap_or(0).min(layers) {
            let prefix = format!("{}{number}.", self.layers());
            expected.extend(each.iter().copied().flatten().map(|rule| make(&prefix, rule)));
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
            Side::Attention => times(config.heads()?.checked_add(config.kv_heads()?.checked_mul(2)?)),
            Side::GateAndUp => config.intermediate()?.checked_mul(2),
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

    /// As published: Gemma 2B, Gemma 2 2B, Gemma 3 1B, Phi-3 mini, Aya 23 8B.
    #[test]
    fn other_families_have_as_many_parameters_as_their_models_are_known_to_have() {
        for (kind, [hidden, inner, layers, heads, keys, head, vocabulary], tied, parameters) in [
            ("gemma", [2048, 16384, 18, 8, 1, 256, 256_000], true, 2_506_172_416),
            ("gemma2", [2304, 9216, 26, 8, 4, 256, 256_000], true, 2_614_341_888),
            ("gemma3_text", [1152, 6912, 26, 4, 1, 256, 262_144], true, 999_885_952),
            ("phi3", [3072, 8192, 32, 32, 32, 96, 32064], false, 3_821_079_552),
            ("cohere", [4096, 14336, 32, 32, 8, 128, 256_000], true, 8_028_033_024),
        ] {
            let tie = if tied { "" } else { r#""tie_word_embeddings":false,"# };
            let json = format!(
                r#"{{{tie}"model_type":"{kind}","architectures":["XForCausalLM"],"hidden_size":{hidden},
                    "intermediate_size":{inner},"num_hidden_layers":{layers},"num_attention_heads":{heads},
                    "num_key_value_heads":{keys},"head_dim":{head},"vocab_size":{vocabulary}}}"#
            );
            let config = config(&json);
            assert_eq!(Family::of(&config).unwrap().elements(&config), Some(parameters), "{kind}");
        }
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
