//! A whole decoder that can be trained.

use super::{
    attention::Sight,
    batch::Batch,
    head::{self, Head, Scored},
    heads::Turn,
    layer::{Layer, Surroundings, Tape},
    linear::{Linear, Lora, Pass},
    nf4::Maxima,
    noise::Key,
    parameter::Parameter,
    weight::{Nf4Matrix, Weight},
};
use crate::inference::{DecoderConfig, Family, LoadError, Rotation, TensorSource};
use candle_core::{DType, Device, Result, Tensor, bail};

/// Names of the linear layers that can get an adapter.
pub const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// What of a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Trained {
    /// Everything.
    All,
    /// Adapters beside the frozen weights.
    Adapter(AdapterShape),
}

/// The shape of new adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterShape {
    /// Rank.
    pub rank: usize,
    /// What the product is multiplied by.
    pub scale: f64,
    /// The share of inputs that is dropped.
    pub dropout: f32,
    /// Which of [`TARGETS`] get one.
    pub targets: Vec<&'static str>,
    /// What the initial values follow from.
    pub key: Key,
}

/// How a model is held.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Where.
    pub device: Device,
    /// The type of frozen weights.
    pub weights: DType,
    /// Keeps the frozen matrices of layers in four bits instead (NF4), with their blocks' largest values like this.
    pub nf4: Option<Maxima>,
    /// The type of activations.
    pub activations: DType,
    /// Whether activations within layers are computed again in the backward pass.
    pub checkpointing: bool,
}

/// A decoder whose weights, or adapters beside them, can be trained.
#[derive(Debug)]
pub struct TrainableDecoder {
    config: DecoderConfig,
    holding: Holding,
    rotation: Rotation,
    embedding: Parameter,
    layers: Vec<Layer>,
    norm: Parameter,
    head: Option<Parameter>,
}

/// A forward pass that a backward pass can follow.
#[derive(Debug)]
pub struct Passed {
    pass: Pass,
    tapes: Vec<Kept>,
    turn: Turn,
    needed: Tensor,
    hidden: Tensor,
}

#[derive(Debug)]
enum Kept {
    Nothing,
    Input(Tensor),
    Tape(Tape),
}

/// Whether a backward pass will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It will.
    ForBackward,
    /// It will not.
    Nothing,
}

impl TrainableDecoder {
    /// Loads a model.
    ///
    /// # Errors
    /// Where a tensor is missing, has another shape than the configuration says, or is no number.
    pub fn load(
        source: &dyn TensorSource,
        config: DecoderConfig,
        trained: &Trained,
        holding: Holding,
    ) -> std::result::Result<Self, LoadError> {
        let loader = Loading { source, config: &config, trained, holding: &holding };
        let hidden = config.hidden;
        let embedding = loader.parameter("model.embed_tokens.weight", &[config.vocabulary, hidden])?;
        let layers = (0..config.layers).map(|index| loader.layer(index)).collect::<std::result::Result<Vec<_>, _>>()?;
        let norm = loader.parameter("model.norm.weight", &[hidden])?;
        let head = match config.tied {
            true => None,
            false => Some(loader.parameter("lm_head.weight", &[config.vocabulary, hidden])?),
        };
        let rotation = Rotation::new(config.rope, config.head_width);
        Ok(Self { config, holding, rotation, embedding, layers, norm, head })
    }

    /// Its shape.
    #[must_use]
    pub const fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Calls `visit` with each of its parameters, always in the same order.
    pub fn visit(&mut self, mut visit: impl FnMut(&mut Parameter)) {
        visit(&mut self.embedding);
        for layer in &mut self.layers {
            layer.visit(&mut visit);
        }
        visit(&mut self.norm);
        self.head.iter_mut().for_each(visit);
    }

    /// Keeps copies of the adapters as they are now, which [`Pass::START`] takes from now on.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn keep_start(&mut self) -> Result<()> {
        let mut adapters =
            self.layers.iter_mut().flat_map(Layer::linears_mut).filter_map(|linear| linear.adapter.as_mut());
        adapters.try_for_each(Lora::keep_start)
    }

    /// How many values all parameters have, and those that are trained.
    pub fn sizes(&mut self) -> (usize, usize) {
        let packed = self.layers.iter().flat_map(Layer::linears).map(|linear| match &linear.weight {
            Weight::Nf4(matrix) => matrix.elements(),
            Weight::Whole(_) => 0,
        });
        let (mut all, mut trained) = (packed.sum(), 0);
        self.visit(|parameter| {
            let count = parameter.value().elem_count();
            all += count;
            trained += if parameter.is_trainable() { count } else { 0 };
        });
        (all, trained)
    }

    /// Runs a batch through all layers.
    ///
    /// # Errors
    /// Where a token is unknown, a position is beyond the context, or the device has no room.
    pub fn forward(&self, batch: &Batch, pass: Pass, keep: Keep) -> Result<Passed> {
        if batch.tokens().is_empty() {
            bail!("a batch without tokens");
        }
        let device = &self.holding.device;
        if let Some(token) = batch.tokens().iter().find(|token| **token as usize >= self.config.vocabulary) {
            bail!("token {token} is none of the model's {}", self.config.vocabulary);
        }
        let ids = Tensor::new(batch.tokens(), device)?;
        let (cos, sin) = self.rotation.at(batch.positions(), device)?;
        let turn = Turn { cos, sin };
        let needed = Tensor::new(batch.counted(), device)?;
        let mut x = self.embedding.value().index_select(&ids, 0)?.to_dtype(self.holding.activations)?;
        let mut tapes = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let around = self.around(index, pass, &turn, batch, &needed);
            let (out, tape) = layer.forward(&x, around)?;
            tapes.push(match keep {
                Keep::Nothing => Kept::Nothing,
                Keep::ForBackward if self.holding.checkpointing => Kept::Input(x),
                Keep::ForBackward => Kept::Tape(tape),
            });
            x = out;
        }
        Ok(Passed { pass, tapes, turn, needed, hidden: x })
    }

    fn around<'a>(
        &self,
        index: usize,
        pass: Pass,
        turn: &'a Turn,
        batch: &'a Batch,
        needed: &'a Tensor,
    ) -> Surroundings<'a> {
        #[allow(clippy::cast_precision_loss, reason = "a head's width is small")]
        let scale = 1.0 / (self.config.head_width as f32).sqrt();
        let window = self.config.windows.get(index).copied().flatten();
        let last = index + 1 == self.layers.len();
        let sight = Sight { bounds: batch.bounds(), window, scale };
        Surroundings { pass, turn, sight, needed: last.then_some(needed) }
    }

    /// Logarithms of the probabilities of the tokens that count.
    ///
    /// # Errors
    /// As [`TrainableDecoder::forward`].
    pub fn log_probabilities(&mut self, batch: &Batch, passed: &Passed) -> Result<Vec<f32>> {
        Ok(self.score(&passed.hidden, batch.targets(), None)?.log_probabilities)
    }

    /// Accumulates gradients; `slopes` says what the logarithm of each token that counts means for the loss. Gives the
    /// logarithms.
    ///
    /// # Errors
    /// As [`TrainableDecoder::forward`].
    pub fn backward(&mut self, batch: &Batch, passed: Passed, slopes: &[f32]) -> Result<Vec<f32>> {
        let Passed { pass, tapes, turn, needed, hidden } = passed;
        let Scored { log_probabilities, gradient } = self.score(&hidden, batch.targets(), Some(slopes))?;
        drop(hidden);
        let mut dy = gradient;
        let embedding = self.embedding.is_trainable();
        for (index, kept) in tapes.into_iter().enumerate().rev() {
            let around = self.around(index, pass, &turn, batch, &needed);
            let Some(layer) = self.layers.get_mut(index) else { bail!("there is no layer {index}") };
            let tape = match kept {
                Kept::Tape(tape) => tape,
                Kept::Input(x) => layer.forward(&x, around)?.1,
                Kept::Nothing => bail!("this pass kept nothing for a backward pass"),
            };
            let Some(gradient) = dy.take() else { bail!("the gradient of layer {index} is missing") };
            dy = layer.backward(tape, &gradient, around, index > 0 || embedding)?;
        }
        if let (true, Some(dx)) = (embedding, dy) {
            let ids = Tensor::new(batch.tokens(), &self.holding.device)?;
            let all = Tensor::zeros(self.embedding.value().shape(), DType::F32, &self.holding.device)?;
            self.embedding.accumulate(&all.index_add(&ids, &dx.to_dtype(DType::F32)?, 0)?)?;
        }
        Ok(log_probabilities)
    }

    fn score(&mut self, hidden: &Tensor, targets: &[u32], slopes: Option<&[f32]>) -> Result<Scored> {
        let weight = self.head.as_mut().unwrap_or(&mut self.embedding);
        let head = Head { norm: &mut self.norm, weight, epsilon: self.config.norm_epsilon };
        head::score(head, hidden, targets, slopes)
    }

    /// Logits of every position of a batch, for comparisons.
    ///
    /// # Errors
    /// As [`TrainableDecoder::forward`].
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Tensor> {
        let mut batch = Batch::new();
        // Every row counts when every next token does; the one after the last is made up.
        batch.push(tokens.iter().chain(tokens.first()).map(|token| (*token, true)));
        let hidden = self.forward(&batch, Pass::ANSWER, Keep::Nothing)?.hidden;
        let norm = super::norm::rms_norm(&hidden, &self.norm.like(&hidden)?, self.config.norm_epsilon)?;
        norm.matmul(&self.head.as_ref().unwrap_or(&self.embedding).like(&norm)?.t()?)
    }
}

/// What layers are made from.
struct Loading<'a> {
    source: &'a dyn TensorSource,
    config: &'a DecoderConfig,
    trained: &'a Trained,
    holding: &'a Holding,
}

impl Loading<'_> {
    fn parameter(&self, name: &str, shape: &[usize]) -> std::result::Result<Parameter, LoadError> {
        let value = self.source.tensor(name, shape, &self.holding.device)?;
        match self.trained {
            Trained::All => Ok(Parameter::trainable(name, &value)?),
            // Norms are few and stay as exact as they are stored.
            Trained::Adapter(_) if shape.len() < 2 => Ok(Parameter::frozen(name, value)),
            Trained::Adapter(_) => Ok(Parameter::frozen(name, value.to_dtype(self.holding.weights)?)),
        }
    }

    fn layer(&self, index: usize) -> std::result::Result<Layer, LoadError> {
        let config = self.config;
        let (queries, keys) = (config.heads * config.head_width, config.key_heads * config.head_width);
        let (hidden, inner) = (config.hidden, config.intermediate);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str, width: usize| self.parameter(&name(&format!("{part}.weight")), &[width]);
        let linear = |number: usize, part: &str, outputs, inputs| {
            self.linear(&name(part), [outputs, inputs], (index * TARGETS.len() + number) as u64)
        };
        let head_norms = match config.family {
            Family::Qwen3 => {
                Some((norm("self_attn.q_norm", config.head_width)?, norm("self_attn.k_norm", config.head_width)?))
            }
            _ => None,
        };
        Ok(Layer {
            attention_norm: norm("input_layernorm", hidden)?,
            q: linear(0, "self_attn.q_proj", queries, hidden)?,
            k: linear(1, "self_attn.k_proj", keys, hidden)?,
            v: linear(2, "self_attn.v_proj", keys, hidden)?,
            o: linear(3, "self_attn.o_proj", hidden, queries)?,
            head_norms,
            block_norm: norm("post_attention_layernorm", hidden)?,
            gate: linear(4, "mlp.gate_proj", inner, hidden)?,
            up: linear(5, "mlp.up_proj", inner, hidden)?,
            down: linear(6, "mlp.down_proj", hidden, inner)?,
            heads: config.heads,
            key_heads: config.key_heads,
            epsilon: config.norm_epsilon,
        })
    }

    fn linear(&self, name: &str, [outputs, inputs]: [usize; 2], index: u64) -> std::result::Result<Linear, LoadError> {
        let own = format!("{name}.weight");
        let weight = match (self.trained, self.holding.nf4) {
            (Trained::Adapter(_), Some(maxima)) => {
                Weight::Nf4(Nf4Matrix::load(self.source, &own, [outputs, inputs], maxima, &self.holding.device)?)
            }
            _ => Weight::Whole(self.parameter(&own, &[outputs, inputs])?),
        };
        let bias = format!("{name}.bias");
        let bias = self.source.has(&bias).then(|| self.parameter(&bias, &[outputs])).transpose()?;
        let adapter = match self.trained {
            Trained::Adapter(shape) if shape.targets.iter().any(|target| name.ends_with(target)) => {
                Some(self.adapter(shape, name, [outputs, inputs], index)?)
            }
            _ => None,
        };
        Ok(Linear { weight, bias, adapter })
    }

    /// As PEFT begins: `a` evenly from ±1/√inputs, `b` zero.
    #[allow(clippy::cast_precision_loss, reason = "sizes of layers are far below 2²⁴")]
    fn adapter(&self, shape: &AdapterShape, name: &str, [outputs, inputs]: [usize; 2], index: u64) -> Result<Lora> {
        let device = &self.holding.device;
        let (key, most) = (shape.key.part(index), 1.0 / (inputs as f32).sqrt());
        let values: Vec<f32> =
            (0..(shape.rank * inputs) as u64).map(|place| (2.0 * key.unit(place) - 1.0) * most).collect();
        let a = Tensor::from_vec(values, (shape.rank, inputs), device)?;
        let b = Tensor::zeros((outputs, shape.rank), DType::F32, device)?;
        let name = |half: &str| format!("base_model.model.{name}.lora_{half}.weight");
        Ok(Lora {
            a: Parameter::trainable(name("A"), &a)?,
            b: Parameter::trainable(name("B"), &b)?,
            start: None,
            scale: shape.scale,
            dropout: shape.dropout,
            index,
        })
    }
}
