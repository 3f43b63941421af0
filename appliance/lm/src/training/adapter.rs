//! Adapters as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`.

use super::decoder::{TARGETS, TrainableDecoder};
use crate::inference::{LoadError, MAX_CONFIG, SafetensorsDirectory, TensorSource, read_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// `LORA`.
    pub peft_type: String,
    /// `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// The base, by name.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Rank.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// The share of inputs that was dropped in training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Which layers have one: a list of names, or an expression that only PEFT reads.
    pub target_modules: Value,
    /// Divides by the root of the rank.
    #[serde(default)]
    pub use_rslora: bool,
    /// `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Weights transposed.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// Weight-decomposed.
    #[serde(default)]
    pub use_dora: bool,
    /// Not to be trained on without a word.
    #[serde(default = "yes")]
    pub inference_mode: bool,
    /// Layers that are replaced whole.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Ranks of single layers.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, Value>,
    /// Numerators of single layers.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, Value>,
}

fn none() -> String {
    "none".to_owned()
}

const fn yes() -> bool {
    true
}

impl AdapterConfig {
    /// Reads `adapter_config.json` of a directory.
    ///
    /// # Errors
    /// Where it cannot be read, or asks for what is not supported.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join("adapter_config.json");
        let config: Self = read_json(&path, MAX_CONFIG)?;
        let what = if config.peft_type != "LORA" {
            format!("adapter type `{}`", config.peft_type)
        } else if config.use_dora {
            "DoRA".to_owned()
        } else if config.fan_in_fan_out {
            "transposed weights".to_owned()
        } else if config.bias != "none" {
            "an adapter with biases".to_owned()
        } else if config.modules_to_save.as_ref().is_some_and(|modules| !modules.is_empty()) {
            "an adapter that replaces whole layers (`modules_to_save`)".to_owned()
        } else if !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty() {
            "an adapter with ranks of their own for single layers".to_owned()
        } else {
            return Ok(config);
        };
        let supported = "adapters are LoRA and RS-LoRA of PEFT with one rank";
        Err(LoadError::Unsupported { path, what, supported })
    }

    /// What the adapter's product is multiplied by.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rank is small")]
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// Which of [`TARGETS`] the tensors of an adapter change.
///
/// # Errors
/// Where the file cannot be read.
pub fn targets(directory: &Path) -> Result<Vec<&'static str>, LoadError> {
    let source = SafetensorsDirectory::open_file(&directory.join("adapter_model.safetensors"))?;
    let has = |target: &&str| source.names().any(|name| name.contains(&format!(".{target}.lora_A.")));
    Ok(TARGETS.into_iter().filter(has).collect())
}

impl TrainableDecoder {
    /// Takes the values of an adapter that PEFT or this module wrote.
    ///
    /// # Errors
    /// Where a tensor is missing, is of another shape, or has no place in the model.
    pub fn take_adapter(&mut self, directory: &Path) -> Result<(), LoadError> {
        let path = directory.join("adapter_model.safetensors");
        let source = SafetensorsDirectory::open_file(&path)?;
        let mut taken = std::collections::BTreeSet::new();
        let mut failed = None;
        self.visit(|parameter| {
            if failed.is_some() || !parameter.is_trainable() {
                return;
            }
            let name = parameter.name().to_owned();
            let value = source.tensor(&name, parameter.value().dims(), parameter.value().device());
            failed = value.and_then(|value| Ok(parameter.set(value)?)).err();
            taken.insert(name);
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match source.names().find(|name| !taken.contains(*name)) {
            Some(name) => Err(LoadError::damaged(
                &path,
                format!("tensor `{name}` has no place in this base; it is an adapter for another"),
            )),
            None => Ok(()),
        }
    }
}
