//! Decoders: Llama, Mistral, Qwen2 and Qwen3, for pieces of many sequences at once.

use super::{
    adapter::{Adapter, Target},
    attention::{Heads, Sight, Span, attend},
    decoder_config::{DecoderConfig, Family},
    error::LoadError,
    kv_cache::{Allocation, BLOCK, KvCache},
    linear::{Linear, Loader},
    matrix::Matrix,
    rotation::Rotation,
};
use candle_core::{Device, Result, Tensor, bail};
use candle_nn::ops::rms_norm;
use rayon::prelude::*;

/// A decoder with its output layer.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    words: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    /// None: the table of words.
    head: Option<Matrix>,
    rotation: Rotation,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    projections: Linear,
    head_norms: Option<(Tensor, Tensor)>,
    output: Linear,
    norm: Tensor,
    gate_up: Linear,
    down: Linear,
}

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Tokens, at least one.
    pub tokens: &'a [u32],
    /// Position of the first; what is before it is in the cache.
    pub start: usize,
    /// Where the sequence's keys and values are kept; there must be room for these tokens.
    pub cached: &'a Allocation,
    /// The adapter that is applied.
    pub adapter: Option<&'a Adapter>,
    /// For how many of the last tokens logits are wanted.
    pub logits: usize,
}

impl Decoder {
    /// Loads the weights.
    ///
    /// # Errors
    /// Where weights lack what the configuration calls for, or contradict it.
    pub fn load(config: DecoderConfig, loader: Loader<'_>) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden;
        let load_layer = |index: usize| {
            let at = |name: &str| format!("model.layers.{index}.{name}");
            let linear = |targets: &[Target]| {
                let parts: Vec<_> = targets.iter().map(|target| (at(target.name()), target.shape(&config).0)).collect();
                let inputs = targets.first().map_or(hidden, |target| target.shape(&config).1);
                loader.linear(&parts, inputs)
            };
            let norm = |name: &str, width| loader.vector(&at(name), width);
            let head_norms = || {
                let norm = |name: &str| norm(name, config.head_width);
                Ok::<_, LoadError>((norm("self_attn.q_norm.weight")?, norm("self_attn.k_norm.weight")?))
            };
            Ok::<_, LoadError>(Layer {
                attention_norm: norm("input_layernorm.weight", hidden)?,
                projections: linear(&PROJECTIONS)?,
                head_norms: (config.family == Family::Qwen3).then(head_norms).transpose()?,
                output: linear(&[Target::Output])?,
                norm: norm("post_attention_layernorm.weight", hidden)?,
                gate_up: linear(&GATE_UP)?,
                down: linear(&[Target::Down])?,
            })
        };
        let table = |name: &str| loader.matrix(&[(name.to_owned(), config.vocabulary)], hidden);
        let (layers, (words, head)) = rayon::join(
            || (0..config.layers).into_par_iter().map(load_layer).collect::<std::result::Result<_, LoadError>>(),
            || {
                let head = || (!config.tied).then(|| table("lm_head.weight")).transpose();
                rayon::join(|| table("model.embed_tokens.weight"), head)
            },
        );
        Ok(Self {
            words: words?,
            layers: layers?,
            norm: loader.vector("model.norm.weight", hidden)?,
            head: head?,
            rotation: Rotation::new(config.rope, config.head_width),
            device: loader.device.clone(),
            config,
        })
    }

    /// Its shape.
    pub const fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where it is computed.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Computes the next tokens of some sequences and stores their keys and values. The result has a row of logits for each
    /// that is wanted, in the order of the pieces.
    ///
    /// # Errors
    /// For an empty piece, a token that there is not, a position that was not reserved or is beyond the context.
    pub fn forward(&self, cache: &KvCache, pieces: &[Piece<'_>]) -> Result<Tensor> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut spans = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let end = piece.start + piece.tokens.len();
            if piece.tokens.is_empty() || piece.logits > piece.tokens.len() || end > self.config.context {
                bail!("a piece of {} tokens at {} of {}", piece.tokens.len(), piece.start, self.config.context);
            }
            let first = tokens.len();
            tokens.extend_from_slice(piece.tokens);
            positions.extend(piece.start..end);
            spans.push(Span {
                queries: first..tokens.len(),
                rows: piece.cached.blocks().to_vec(),
                block: BLOCK,
                start: piece.start,
                sight: Sight::Past { window: None },
            });
        }
        let turn = self.rotation.at(&positions, &self.device)?;
        let mut x = self.words.rows(&tokens, &self.device)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let window = self.config.windows.get(index).copied().flatten();
            spans.iter_mut().for_each(|span| span.sight = Sight::Past { window });
            let step = Step { decoder: self, index, layer, cache, pieces, spans: &spans, turn: &turn };
            x = step.forward(x)?;
        }
        let wanted: Vec<u32> = pieces
            .iter()
            .zip(&spans)
            .flat_map(|(piece, span)| span.queries.end - piece.logits..span.queries.end)
            .map(|row| u32::try_from(row).unwrap_or(u32::MAX))
            .collect();
        if wanted.is_empty() {
            return Tensor::zeros((0, self.config.vocabulary), x.dtype(), &self.device);
        }
        let x = if wanted.len() == tokens.len() { x } else { x.index_select(&Tensor::new(wanted, &self.device)?, 0)? };
        let x = rms_norm(&x, &self.norm, self.config.norm_epsilon)?;
        self.head.as_ref().unwrap_or(&self.words).forward(&x, None)
    }
}

const PROJECTIONS: [Target; 3] = [Target::Query, Target::Key, Target::Value];
const GATE_UP: [Target; 2] = [Target::Gate, Target::Up];

/// One layer for the rows of all pieces.
struct Step<'a> {
    decoder: &'a Decoder,
    index: usize,
    layer: &'a Layer,
    cache: &'a KvCache,
    pieces: &'a [Piece<'a>],
    spans: &'a [Span],
    turn: &'a (Tensor, Tensor),
}

impl Step<'_> {
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let epsilon = self.decoder.config.norm_epsilon;
        let normed = rms_norm(&x, &self.layer.attention_norm, epsilon)?;
        let mixed = self.attention(&normed)?;
        let x = (x + self.apply(&self.layer.output, &[Target::Output], &mixed)?)?;
        let normed = rms_norm(&x, &self.layer.norm, epsilon)?;
        let gate_up = self.apply(&self.layer.gate_up, &GATE_UP, &normed)?;
        let inner = candle_nn::ops::swiglu(&gate_up)?;
        x + self.apply(&self.layer.down, &[Target::Down], &inner)?
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let DecoderConfig { heads, key_heads, head_width, norm_epsilon, .. } = self.decoder.config;
        let rows = x.dim(0)?;
        let projected = self.apply(&self.layer.projections, &PROJECTIONS, x)?;
        let part =
            |first: usize, heads: usize| projected.narrow(1, first * head_width, heads * head_width)?.contiguous();
        let turned = |part: Tensor, heads: usize, norm: Option<&Tensor>| -> Result<Tensor> {
            let mut part = part.reshape((1, rows, heads, head_width))?;
            if let Some(norm) = norm {
                part = rms_norm(&part, norm, norm_epsilon)?;
            }
            let (cos, sin) = self.turn;
            candle_nn::rotary_emb::rope_thd(&part, cos, sin)?.reshape((rows, heads * head_width))
        };
        let norms = self.layer.head_norms.as_ref();
        let q = turned(part(0, heads)?, heads, norms.map(|(q, _)| q))?;
        let k = turned(part(heads, key_heads)?, key_heads, norms.map(|(_, k)| k))?;
        let v = part(heads + key_heads, key_heads)?;
        for (piece, span) in self.pieces.iter().zip(self.spans) {
            let own = |of: &Tensor| of.narrow(0, span.queries.start, span.queries.len());
            self.cache.store(self.index, piece.cached, piece.start, &own(&k)?, &own(&v)?)?;
        }
        let (keys, values) = self.cache.layer(self.index)?;
        let scale = 1.0 / (head_width as f32).sqrt();
        attend(&q, keys, values, Heads { queries: heads, keys: key_heads, width: head_width, scale }, self.spans)
    }

    /// A linear layer with what the pieces' adapters add.
    fn apply(&self, linear: &Linear, targets: &[Target], x: &Tensor) -> Result<Tensor> {
        let plain = linear.forward(x)?;
        if self.pieces.iter().all(|piece| piece.adapter.is_none()) {
            return Ok(plain);
        }
        let widths: Vec<_> = targets.iter().map(|target| target.shape(&self.decoder.config).0).collect();
        let mut changes = Vec::with_capacity(self.pieces.len());
        for (piece, span) in self.pieces.iter().zip(self.spans) {
            let own = x.narrow(0, span.queries.start, span.queries.len())?;
            let change = match piece.adapter {
                Some(adapter) => adapter.change(self.index, targets, &widths, &own)?,
                None => None,
            };
            changes.push(match change {
                Some(change) => change,
                None => Tensor::zeros((span.queries.len(), widths.iter().sum()), x.dtype(), x.device())?,
            });
        }
        plain + Tensor::cat(&changes, 0)?
    }
}
