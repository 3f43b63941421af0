//! Encoders: BERT, DistilBERT, RoBERTa and XLM-RoBERTa, for texts of different lengths at once and without padding.

use super::{
    attention::{Heads, Sight, Span, attend},
    encoder_config::{Activation, EncoderConfig, Family},
    error::LoadError,
    linear::{Linear, Loader},
    matrix::Matrix,
};
use candle_core::{IndexOp, Result, Tensor, bail};
use candle_nn::ops::layer_norm;
use rayon::prelude::*;

/// The tokens of a text as the model takes them.
#[derive(Debug, Clone)]
pub struct EncodedText {
    /// Tokens, those included that the tokenizer adds.
    pub tokens: Vec<u32>,
    /// Which part of a pair each belongs to.
    pub types: Vec<u32>,
}

/// An encoder without what comes after its last layer.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    words: Matrix,
    positions: Matrix,
    types: Option<Matrix>,
    norm: Norm,
    layers: Vec<Layer>,
    device: candle_core::Device,
}

#[derive(Debug)]
struct Layer {
    projections: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

/// Names of tensors, by family.
struct Names {
    /// What stands before all others.
    prefix: String,
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

impl Names {
    fn new(loader: &Loader<'_>, family: Family) -> Self {
        let prefix = match family {
            Family::Bert => "bert.",
            Family::DistilBert => "distilbert.",
            Family::Roberta => "roberta.",
        };
        let plain = loader.source.has("embeddings.word_embeddings.weight");
        let prefix = if plain { String::new() } else { prefix.to_owned() };
        match family {
            Family::Bert | Family::Roberta => Self {
                prefix,
                layer: "encoder.layer",
                query: "attention.self.query",
                key: "attention.self.key",
                value: "attention.self.value",
                output: "attention.output.dense",
                attention_norm: "attention.output.LayerNorm",
                up: "intermediate.dense",
                down: "output.dense",
                norm: "output.LayerNorm",
            },
            Family::DistilBert => Self {
                prefix,
                layer: "transformer.layer",
                query: "attention.q_lin",
                key: "attention.k_lin",
                value: "attention.v_lin",
                output: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                up: "ffn.lin1",
                down: "ffn.lin2",
                norm: "output_layer_norm",
            },
        }
    }
}

impl Encoder {
    /// Loads the layers.
    ///
    /// # Errors
    /// Where weights lack what the configuration calls for, or contradict it.
    pub fn load(config: EncoderConfig, loader: Loader<'_>) -> std::result::Result<Self, LoadError> {
        let names = Names::new(&loader, config.family);
        let EncoderConfig { hidden, intermediate, norm_epsilon, .. } = config;
        let embeddings = format!("{}embeddings", names.prefix);
        let table = |name: &str, rows| loader.matrix(&[(format!("{embeddings}.{name}.weight"), rows)], hidden);
        let norm = |name: String| Norm::load(&loader, &name, hidden, norm_epsilon);
        let load_layer = |index: usize| {
            let at = |name: &str| format!("{}{}.{index}.{name}", names.prefix, names.layer);
            let projections = [at(names.query), at(names.key), at(names.value)].map(|name| (name, hidden));
            Ok::<_, LoadError>(Layer {
                projections: loader.linear(&projections, hidden)?,
                output: loader.linear(&[(at(names.output), hidden)], hidden)?,
                attention_norm: norm(at(names.attention_norm))?,
                up: loader.linear(&[(at(names.up), intermediate)], hidden)?,
                down: loader.linear(&[(at(names.down), hidden)], intermediate)?,
                norm: norm(at(names.norm))?,
            })
        };
        Ok(Self {
            words: table("word_embeddings", config.vocabulary)?,
            positions: table("position_embeddings", config.positions)?,
            types: (config.types > 0).then(|| table("token_type_embeddings", config.types)).transpose()?,
            norm: norm(format!("{embeddings}.LayerNorm"))?,
            layers: (0..config.layers)
                .into_par_iter()
                .map(load_layer)
                .collect::<std::result::Result<_, LoadError>>()?,
            device: loader.device.clone(),
            config,
        })
    }

    /// Its shape.
    pub const fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The last layer's row of each token, a tensor for each text.
    ///
    /// # Errors
    /// For a text that is empty or too long, or a token that there is not.
    pub fn forward(&self, texts: &[EncodedText]) -> Result<Vec<Tensor>> {
        let mut spans = Vec::with_capacity(texts.len());
        let (mut tokens, mut positions, mut types) = (Vec::new(), Vec::new(), Vec::new());
        let first = if self.config.family == Family::Roberta { self.config.padding + 1 } else { 0 };
        for EncodedText { tokens: text, types: kinds } in texts {
            if text.is_empty() || text.len() > self.config.longest() || kinds.len() != text.len() {
                bail!("a text of {} tokens; the model takes 1 to {}", text.len(), self.config.longest());
            }
            let start = tokens.len();
            tokens.extend_from_slice(text);
            types.extend_from_slice(kinds);
            positions.extend((first..first + text.len()).map(|position| u32::try_from(position).unwrap_or(u32::MAX)));
            // Keys lie where the queries do.
            let rows = (start..tokens.len()).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
            spans.push(Span { queries: start..tokens.len(), rows, block: 1, start: 0, sight: Sight::Everything });
        }
        let mut x = (self.words.rows(&tokens, &self.device)? + self.positions.rows(&positions, &self.device)?)?;
        if let Some(table) = &self.types {
            x = (x + table.rows(&types, &self.device)?)?;
        }
        x = self.norm.forward(&x)?;
        for layer in &self.layers {
            x = self.layer(layer, &x, &spans)?;
        }
        spans.iter().map(|span| x.narrow(0, span.queries.start, span.queries.len())).collect()
    }

    fn layer(&self, layer: &Layer, x: &Tensor, spans: &[Span]) -> Result<Tensor> {
        let EncoderConfig { hidden, heads, activation, .. } = self.config;
        let width = hidden / heads;
        let heads = Heads { queries: heads, keys: heads, width, scale: 1.0 / (width as f32).sqrt() };
        let qkv = layer.projections.forward(x)?;
        let part = |index: usize| qkv.narrow(1, index * hidden, hidden);
        let mixed = attend(&part(0)?, &part(1)?, &part(2)?, heads, spans)?;
        let x = layer.attention_norm.forward(&(layer.output.forward(&mixed)? + x)?)?;
        let up = activation.apply(&layer.up.forward(&x)?)?;
        layer.norm.forward(&(layer.down.forward(&up)? + x)?)
    }
}

impl Activation {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

impl Norm {
    fn load(loader: &Loader<'_>, name: &str, width: usize, epsilon: f32) -> std::result::Result<Self, LoadError> {
        // Checkpoints that were converted from TensorFlow have other names.
        let old = loader.source.has(&format!("{name}.gamma"));
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        Ok(Self {
            weight: loader.vector(&format!("{name}.{weight}"), width)?,
            bias: loader.vector(&format!("{name}.{bias}"), width)?,
            epsilon,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.epsilon)
    }
}

/// An encoder that says to which class a text belongs.
#[derive(Debug)]
pub struct Classifier {
    encoder: Encoder,
    dense: Linear,
    classes: Linear,
}

impl Classifier {
    /// Loads encoder and head.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn load(config: EncoderConfig, loader: Loader<'_>) -> std::result::Result<Self, LoadError> {
        let (dense, classes) = match config.family {
            Family::Bert => ("bert.pooler.dense", "classifier"),
            Family::DistilBert => ("pre_classifier", "classifier"),
            Family::Roberta => ("classifier.dense", "classifier.out_proj"),
        };
        Ok(Self {
            dense: loader.linear(&[(dense.to_owned(), config.hidden)], config.hidden)?,
            classes: loader.linear(&[(classes.to_owned(), config.labels.len())], config.hidden)?,
            encoder: Encoder::load(config, loader)?,
        })
    }

    /// Its shape.
    pub const fn config(&self) -> &EncoderConfig {
        &self.encoder.config
    }

    /// A score for each class, before softmax or sigmoid, for each text.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn forward(&self, texts: &[EncodedText]) -> Result<Vec<Vec<f32>>> {
        let firsts: Vec<Tensor> =
            self.encoder.forward(texts)?.iter().map(|rows| rows.i(0..1)).collect::<Result<_>>()?;
        let dense = self.dense.forward(&Tensor::cat(&firsts, 0)?)?;
        let dense = if self.config().family == Family::DistilBert { dense.relu()? } else { dense.tanh()? };
        self.classes.forward(&dense)?.to_vec2()
    }
}
