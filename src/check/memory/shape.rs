//! The shape of a transformer, from its `config.json`.

use serde_json::Value;

/// Most that the numbers of a configuration may be, far above any model: their products stay far below 2⁶⁴.
const MAX_WIDTH: u64 = 1 << 17;
const MAX_INNER: u64 = 1 << 19;
const MAX_COUNT: u64 = 1 << 11;
const MAX_VOCABULARY: u64 = 1 << 23;
const MAX_PARAMETERS: u64 = 1 << 50;

/// The numbers of a transformer that memory depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Number of layers.
    pub layers: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Width of a head.
    pub head: u64,
    /// Width of the feed-forward part.
    pub inner: u64,
    /// Whether the feed-forward part has a gate beside its way up, as Llama's has.
    pub gated: bool,
    /// Experts in each layer, and how many of them a token visits; (1, 1) without experts.
    pub experts: (u64, u64),
    /// Number of tokens known.
    pub vocabulary: u64,
    /// Whether input and output share one matrix.
    pub tied: bool,
    /// Whether it gives a distribution over tokens at each place.
    pub language_model: bool,
    /// Tokens in the longest sequence.
    pub context: Option<u64>,
    /// Parameters in all, if the weights were looked at.
    pub parameters: Option<u64>,
    /// Bytes of the weights as they are stored, if they were looked at.
    pub stored: Option<u64>,
    /// Whether queries and keys are normalised before they meet (Qwen3, Gemma 3).
    pub normed_heads: bool,
    /// Numbers that the feed-forward part's activation function keeps for each of its inputs.
    pub activation: u64,
    /// Whether training leaves out attention at random: processors then hold each head's scores.
    pub drops_attention: bool,
    /// Width of what is cached for a token where keys and values come out of one latent vector (DeepSeek's MLA).
    pub latent: Option<u64>,
    /// The matrices of a layer that adapters are put beside.
    pub family: Family,
}

/// How a family of models calls and cuts the matrices of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama's: a matrix for each purpose.
    Llama,
    /// Phi-3's: one for queries, keys and values, one for gate and way up.
    Phi3,
    /// GPT-2's: one for queries, keys and values.
    Gpt2,
    /// BERT's.
    Bert,
    /// DistilBERT's.
    DistilBert,
    /// OPT's.
    Opt,
    /// GPT-NeoX's, BLOOM's and Falcon's: one for queries, keys and values.
    NeoX,
}

/// Why no shape can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its config.json has no usable `{0}`")]
pub struct ShapeError(pub &'static str);

impl Shape {
    /// Reads `config.json`. Models of several parts (vision and language) keep the language's numbers in a part.
    ///
    /// # Errors
    /// [`ShapeError`] naming the number that is missing.
    pub fn from_config(config: &Value) -> Result<Self, ShapeError> {
        let inner = ["text_config", "llm_config", "language_config"].iter().find_map(|key| config.get(key));
        let config = inner.filter(|_| config.get("hidden_size").is_none()).unwrap_or(config);
        let number = |max: u64, names: &[&str]| {
            let found = names.iter().find_map(|name| config.get(name)?.as_u64());
            found.filter(|number| (1..=max).contains(number))
        };
        let hidden =
            number(MAX_WIDTH, &["hidden_size", "dim", "n_embd", "d_model"]).ok_or(ShapeError("hidden_size"))?;
        let layers = number(MAX_COUNT, &["num_hidden_layers", "n_layers", "n_layer", "num_layers"])
            .ok_or(ShapeError("num_hidden_layers"))?;
        let heads = number(MAX_COUNT, &["num_attention_heads", "n_heads", "n_head"])
            .ok_or(ShapeError("num_attention_heads"))?;
        let vocabulary = number(MAX_VOCABULARY, &["vocab_size"]).ok_or(ShapeError("vocab_size"))?;
        let experts = number(MAX_COUNT, &["num_local_experts", "num_experts", "n_routed_experts"]).unwrap_or(1);
        let visited = number(MAX_COUNT, &["num_experts_per_tok"]).unwrap_or(1).min(experts);
        let feed_forward = number(MAX_INNER, &["moe_intermediate_size"])
            .filter(|_| experts > 1)
            .or_else(|| number(MAX_INNER, &["intermediate_size", "hidden_dim", "n_inner", "ffn_dim"]))
            // GPT-2 leaves it out where it is four times the width.
            .unwrap_or(4 * hidden);
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let gated = is_gated(kind);
        Ok(Self {
            hidden,
            layers,
            heads,
            kv_heads: number(MAX_COUNT, &["num_key_value_heads"]).unwrap_or(heads),
            head: number(MAX_COUNT, &["head_dim"]).unwrap_or((hidden / heads).max(1)),
            inner: feed_forward,
            gated,
            experts: (experts, visited),
            vocabulary,
            // Transformers' own default is true, and configurations leave it out then.
            tied: flag("tie_word_embeddings").unwrap_or(!gated || kind.starts_with("gemma")),
            language_model: is_language_model(config),
            context: number(MAX_PARAMETERS, &["max_position_embeddings", "n_positions", "n_ctx"]),
            parameters: None,
            stored: None,
            normed_heads: ["qwen3", "gemma3", "olmo2", "olmo3"].iter().any(|name| kind.starts_with(name)),
            activation: activation(config, gated),
            drops_attention: drops_attention(config, kind),
            latent: number(MAX_WIDTH, &["kv_lora_rank"])
                .map(|rank| rank + number(MAX_WIDTH, &["qk_rope_head_dim"]).unwrap_or(0)),
            family: Family::of(kind),
        })
    }

    /// The same, with what the weights themselves say.
    pub fn with_weights(mut self, parameters: Option<u64>, stored: Option<u64>) -> Self {
        self.parameters = parameters.filter(|&count| count <= MAX_PARAMETERS);
        self.stored = stored.filter(|&bytes| bytes <= 4 * MAX_PARAMETERS);
        self
    }

    /// Width of all queries.
    pub const fn queries(&self) -> u64 {
        self.heads * self.head
    }

    /// Width of all keys.
    pub const fn keys(&self) -> u64 {
        self.kv_heads * self.head
    }

    /// Parameters of the matrix from tokens to vectors.
    pub const fn embedding(&self) -> u64 {
        self.vocabulary * self.hidden
    }

    /// Parameters of the matrices of all layers.
    pub const fn linear(&self) -> u64 {
        let attention = 2 * self.hidden * self.queries() + 2 * self.hidden * self.keys();
        let ways = if self.gated { 3 } else { 2 };
        let router = if self.experts.0 > 1 { self.hidden * self.experts.0 } else { 0 };
        self.layers * (attention + ways * self.hidden * self.inner * self.experts.0 + router)
    }

    /// Parameters in all: as counted in the weights, else as the shape gives them, without biases.
    pub fn all_parameters(&self) -> u64 {
        let heads = if self.language_model && !self.tied { 2 } else { 1 };
        let computed = self.linear() + heads * self.embedding() + (2 * self.layers + 1) * self.hidden;
        self.parameters.unwrap_or(computed)
    }

    /// Bytes of a weight as it is stored: 2 or 4.
    pub fn stored_width(&self) -> u64 {
        match (self.stored, self.parameters) {
            (Some(bytes), Some(count)) if bytes >= count.saturating_mul(4) => 4,
            _ => 2,
        }
    }

    /// The projections of a layer by name, with the widths of input and output. What an adapter is put beside.
    pub fn projections(&self) -> Vec<(&'static str, u64, u64)> {
        let (h, q, k, f) = (self.hidden, self.queries(), self.keys(), self.inner);
        match self.family {
            Family::Llama if self.gated => vec![
                ("q_proj", h, q),
                ("k_proj", h, k),
                ("v_proj", h, k),
                ("o_proj", q, h),
                ("gate_proj", h, f),
                ("up_proj", h, f),
                ("down_proj", f, h),
            ],
            Family::Phi3 => {
                vec![("qkv_proj", h, q + 2 * k), ("o_proj", q, h), ("gate_up_proj", h, 2 * f), ("down_proj", f, h)]
            }
            Family::Gpt2 => vec![("c_attn", h, q + 2 * k), ("c_proj", q, h), ("c_fc", h, f), ("c_proj", f, h)],
            Family::NeoX => vec![
                ("query_key_value", h, q + 2 * k),
                ("dense", q, h),
                ("dense_h_to_4h", h, f),
                ("dense_4h_to_h", f, h),
            ],
            Family::Bert => {
                vec![("query", h, q), ("key", h, k), ("value", h, k), ("dense", q, h), ("dense", h, f), ("dense", f, h)]
            }
            Family::DistilBert => vec![
                ("q_lin", h, q),
                ("k_lin", h, k),
                ("v_lin", h, k),
                ("out_lin", q, h),
                ("lin1", h, f),
                ("lin2", f, h),
            ],
            Family::Llama | Family::Opt => vec![
                ("q_proj", h, q),
                ("k_proj", h, k),
                ("v_proj", h, k),
                ("out_proj", q, h),
                ("fc1", h, f),
                ("fc2", f, h),
            ],
        }
    }
}

impl Family {
    fn of(kind: &str) -> Self {
        match kind {
            "phi3" => Self::Phi3,
            "gpt2" => Self::Gpt2,
            "bert" | "roberta" | "xlm-roberta" | "camembert" | "electra" => Self::Bert,
            "distilbert" => Self::DistilBert,
            "opt" => Self::Opt,
            "gpt_neox" | "bloom" | "falcon" => Self::NeoX,
            _ => Self::Llama,
        }
    }
}

/// GPT-2's activation function is written out in five operations, four of which keep something; others are one.
fn activation(config: &Value, gated: bool) -> u64 {
    let name = ["activation_function", "hidden_act", "hidden_activation", "activation"]
        .iter()
        .find_map(|key| config.get(key)?.as_str())
        .or_else(|| (config.get("model_type")?.as_str()? == "gpt2").then_some("gelu_new"));
    if !gated && name == Some("gelu_new") { 4 } else { 1 }
}

/// Whether a share of attention is left out in training; where a configuration does not say, Transformers goes by the type.
fn drops_attention(config: &Value, kind: &str) -> bool {
    let said = ["attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"]
        .iter()
        .find_map(|key| config.get(key)?.as_f64());
    said.map_or_else(|| is_bert_like(kind) || kind == "gpt2", |share| share > 0.0)
}

/// Whether models of this type have a gate in their feed-forward part.
fn is_gated(kind: &str) -> bool {
    const PLAIN: [&str; 7] = ["albert", "gpt2", "gpt_neo", "gpt_neox", "opt", "bloom", "falcon"];
    !is_bert_like(kind) && !PLAIN.contains(&kind)
}

/// Whether models of this type are built, and by default trained, as BERT is.
fn is_bert_like(kind: &str) -> bool {
    const KINDS: [&str; 9] =
        ["bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta", "deberta-v2"];
    KINDS.contains(&kind)
}

fn is_language_model(config: &Value) -> bool {
    let architectures = config.get("architectures").and_then(Value::as_array);
    let names = architectures.into_iter().flatten().filter_map(Value::as_str);
    names.into_iter().any(|name| {
        name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") || name.ends_with("ForConditionalGeneration")
    })
}
