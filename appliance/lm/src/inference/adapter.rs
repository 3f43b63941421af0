//! LoRA adapters as PEFT writes them, applied beside the weights: many adapters share one base in memory, and sequences
//! with different ones are computed together.

use super::{
    decoder_config::DecoderConfig,
    error::LoadError,
    json_file::{MAX_CONFIG, read_json},
    linear::Loader,
    matrix::{Matrix, MatrixBuilder, Precision},
    tensors::{SafetensorsDirectory, TensorSource},
};
use candle_core::{Device, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const SUPPORTED: &str =
    "adapters are LoRA and RS-LoRA of PEFT on the linear layers of attention and feed-forward blocks";
/// Highest rank that is believed.
const MAX_RANK: usize = 4096;

/// The layers that an adapter can change, in the order in which [`super::decoder`] computes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// What follows attention.
    Output,
    /// The gate of a feed-forward block.
    Gate,
    /// Its way up.
    Up,
    /// Its way down.
    Down,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name of its tensors in a layer.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Outputs and inputs.
    pub const fn shape(self, config: &DecoderConfig) -> (usize, usize) {
        let (queries, keys) = (config.heads * config.head_width, config.key_heads * config.head_width);
        match self {
            Self::Query => (queries, config.hidden),
            Self::Key | Self::Value => (keys, config.hidden),
            Self::Output => (config.hidden, queries),
            Self::Gate | Self::Up => (config.intermediate, config.hidden),
            Self::Down => (config.hidden, config.intermediate),
        }
    }
}

/// An adapter for one base model.
#[derive(Debug)]
pub struct Adapter {
    changes: BTreeMap<(usize, Target), Change>,
}

/// `x · aᵀ · bᵀ`, the scale being in `b`.
#[derive(Debug)]
struct Change {
    a: Matrix,
    b: Matrix,
}

#[derive(Deserialize)]
struct Config {
    peft_type: String,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, Value>>,
}

impl Adapter {
    /// Loads `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// Where one cannot be read, is of another kind, or was made for another base.
    pub fn load(directory: &Path, base: &DecoderConfig, device: &Device) -> std::result::Result<Self, LoadError> {
        let path = &directory.join("adapter_config.json");
        let config: Config = read_json(path, MAX_CONFIG)?;
        config.check(path)?;
        let source = SafetensorsDirectory::open_file(&directory.join("adapter_model.safetensors"))?;
        let mut rest: BTreeSet<&str> = source.names().collect();
        let mut changes = BTreeMap::new();
        for layer in 0..base.layers {
            for target in Target::ALL {
                let name = |half| format!("base_model.model.model.layers.{layer}.{}.lora_{half}.weight", target.name());
                let (a, b) = (name("A"), name("B"));
                if rest.remove(a.as_str()) | rest.remove(b.as_str()) {
                    let change = Change::load(&source, [&a, &b], target.shape(base), &config, device)?;
                    changes.insert((layer, target), change);
                }
            }
        }
        if let Some(name) = rest.first() {
            return Err(LoadError::Unsupported {
                path: source.path().to_path_buf(),
                what: format!("tensor `{name}`, for which the base has no place,"),
                supported: SUPPORTED,
            });
        }
        if changes.is_empty() {
            return Err(LoadError::damaged(source.path(), "it changes nothing"));
        }
        Ok(Self { changes })
    }

    /// What is added to the results of these targets, side by side, for rows `x`; nothing where it changes none of them.
    pub(super) fn change(
        &self,
        layer: usize,
        targets: &[Target],
        widths: &[usize],
        x: &Tensor,
    ) -> Result<Option<Tensor>> {
        if !targets.iter().any(|target| self.changes.contains_key(&(layer, *target))) {
            return Ok(None);
        }
        let parts = targets.iter().zip(widths).map(|(target, width)| match self.changes.get(&(layer, *target)) {
            Some(Change { a, b }) => b.forward(&a.forward(x, None)?, None),
            None => Tensor::zeros((x.dim(0)?, *width), x.dtype(), x.device()),
        });
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1).map(Some)
    }
}

impl Config {
    fn check(&self, path: &Path) -> std::result::Result<(), LoadError> {
        let what = if self.peft_type != "LORA" {
            format!("adapter type `{}`", self.peft_type)
        } else if self.use_dora {
            "DoRA".to_owned()
        } else if self.fan_in_fan_out {
            "transposed weights".to_owned()
        } else if self.bias.as_deref().is_some_and(|bias| bias != "none") {
            "an adapter with biases".to_owned()
        } else if self.modules_to_save.as_ref().is_some_and(|modules| !modules.is_empty()) {
            "an adapter that replaces whole layers (`modules_to_save`)".to_owned()
        } else if self.alpha_pattern.as_ref().is_some_and(|pattern| !pattern.is_empty()) {
            "an alpha for each layer (`alpha_pattern`)".to_owned()
        } else {
            return Ok(());
        };
        Err(LoadError::Unsupported { path: path.to_path_buf(), what, supported: SUPPORTED })
    }
}

impl Change {
    fn load(
        source: &SafetensorsDirectory,
        [a, b]: [&str; 2],
        (outputs, inputs): (usize, usize),
        config: &Config,
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        let missing = |name: &str| LoadError::NoTensor { path: source.path().to_path_buf(), name: name.to_owned() };
        let rank = source.shape(a).ok_or_else(|| missing(a))?.first().copied().unwrap_or_default();
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(LoadError::damaged(source.path(), format!("tensor `{a}` has rank {rank}")));
        }
        let scale = config.lora_alpha / if config.use_rslora { (rank as f32).sqrt() } else { rank as f32 };
        let loader = Loader { source, precision: Some(Precision::F32), device };
        source.expect(b, &[outputs, rank])?;
        let mut scaled = MatrixBuilder::new(rank, outputs, Precision::F32, device);
        source.read(b, &[outputs, rank], &mut |rows| {
            scaled.push(&rows.iter().map(|value| value * scale).collect::<Vec<_>>());
        })?;
        Ok(Self { a: loader.matrix(&[(a.to_owned(), rank)], inputs)?, b: scaled.finish()? })
    }
}
