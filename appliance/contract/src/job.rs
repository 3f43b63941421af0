//! `job.json`: the one file that says what to train on what, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The largest job file that is read, in bytes.
pub const MAX_JOB_BYTES: usize = 1 << 20;

/// A job as written; [`JobSpec::check`] makes a [`crate::Job`] of it.
///
/// Names and meanings are those of PEFT's `LoraConfig` and TRL's `SFTConfig` and `DPOConfig`. Relative paths start at
/// the directory of the job file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Job")]
pub struct JobSpec {
    /// Directory of the base model, in Hugging Face's layout.
    pub model: PathBuf,
    /// Directory of a PEFT adapter for this base to go on training from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// JSON Lines with the training examples.
    pub training_file: PathBuf,
    /// JSON Lines with examples that are only measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_file: Option<PathBuf>,
    /// Directory for everything that the job leaves behind; made if it is not there.
    pub output: PathBuf,
    /// Everything random (data order, initial adapter, dropout) follows from it.
    #[serde(default = "seed")]
    pub seed: u64,
    /// What is optimised.
    #[serde(default)]
    pub method: Method,
    /// How often the training file is gone through; either this or `max_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub n_epochs: Option<f64>,
    /// How many optimiser steps are made; either this or `n_epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Examples in one forward pass on one device; `auto` takes the largest that fits.
    #[serde(default)]
    pub batch_size: BatchSize,
    /// Forward passes whose gradients make one optimiser step.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub gradient_accumulation_steps: u64,
    /// Whether each epoch goes through the examples in a new order, which follows from the seed. `false` keeps the file's.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Peak learning rate.
    #[serde(default = "learning_rate")]
    #[schemars(range(min = 0.0))]
    pub learning_rate: f64,
    /// How the learning rate runs from its peak to the last step.
    #[serde(default)]
    pub lr_scheduler_type: Scheduler,
    /// Steps over which the learning rate rises from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// The same as a share of all steps (rounded up); not beside `warmup_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
    /// The optimiser.
    #[serde(default)]
    pub optim: Optimizer,
    /// AdamW's β₁.
    #[serde(default = "adam_beta1")]
    pub adam_beta1: f64,
    /// AdamW's β₂.
    #[serde(default = "adam_beta2")]
    pub adam_beta2: f64,
    /// AdamW's ε.
    #[serde(default = "adam_epsilon")]
    pub adam_epsilon: f64,
    /// Decoupled weight decay; biases and norms are exempt.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 leaves them as they are.
    #[serde(default = "max_grad_norm")]
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Tokens of an example beyond this are cut off, counted and reported.
    #[serde(default = "max_length")]
    #[schemars(range(min = 2))]
    pub max_length: u64,
    /// Puts several examples into one row of `max_length` tokens; none sees another.
    #[serde(default)]
    pub packing: bool,
    /// Only the answers count: the completion, and the assistant's turns of a conversation.
    #[serde(default = "yes")]
    pub completion_only_loss: bool,
    /// The adapter's shape. Without it all of the model's weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Keeps the frozen base in fewer bits (QLoRA); needs `lora`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// What is computed in. `auto`: bfloat16 on GPUs that have it, else float32.
    #[serde(default)]
    pub dtype: Dtype,
    /// Computes activations again in the backward pass instead of keeping them: slower, in less memory.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Steps between checkpoints; without it the last step alone leaves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub save_steps: Option<u64>,
    /// How many checkpoints are kept, beside the best; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub save_total_limit: Option<u64>,
    /// Steps between measurements on the validation file; without it once after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub eval_steps: Option<u64>,
    /// Stops when the validation loss no longer falls, and keeps the best; needs `validation_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// DPO: how strongly the policy is held near what it began with: the base, or the base with `adapter`.
    #[serde(default = "beta")]
    #[schemars(range(min = 0.0))]
    pub beta: f64,
    /// DPO: the loss over the difference of the two log-ratios.
    #[serde(default)]
    pub loss_type: DpoLoss,
    /// DPO: the share of preferences that is taken to be the wrong way round.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: f64,
    /// Free words of whoever made the job; copied into the lineage.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// What is optimised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The likelihood of the answers (SFT).
    #[default]
    Supervised,
    /// Direct preference optimisation: chosen answers over rejected ones, held near the base.
    Dpo,
}

/// Examples in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BatchSize {
    /// So many.
    Examples(#[schemars(range(min = 1))] u64),
    /// As many as fit into memory.
    Auto(AutoWord),
}

impl BatchSize {
    /// As many as fit.
    pub const AUTO: Self = Self::Auto(AutoWord::Auto);
}

impl Default for BatchSize {
    fn default() -> Self {
        Self::Examples(8)
    }
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AutoWord {
    /// As many as fit.
    Auto,
}

/// How the learning rate runs after warm-up; formulas of Transformers' schedulers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// Straight down to zero at the last step.
    #[default]
    Linear,
    /// Half a cosine down to zero at the last step.
    Cosine,
    /// Stays, without warm-up.
    Constant,
    /// Stays after warm-up.
    ConstantWithWarmup,
}

/// The optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// AdamW as PyTorch computes it.
    #[default]
    AdamwTorch,
}

/// What is computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16 on GPUs that have it, else float32.
    #[default]
    Auto,
    /// 32-bit floats.
    Float32,
    /// 16-bit brain floats; what is trained and the optimiser's state stay in float32.
    Bfloat16,
}

/// How the frozen base is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantization {
    /// 4-bit NormalFloat in blocks of 64 (bitsandbytes' `nf4`, without double quantisation).
    #[serde(rename = "nf4")]
    Nf4,
    /// The same with the blocks' largest values in eight bits (bitsandbytes' `nf4` with `bnb_4bit_use_double_quant`).
    #[serde(rename = "nf4-double-quant")]
    Nf4DoubleQuant,
}

/// The loss over the difference of the log-ratios in DPO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DpoLoss {
    /// −log σ(β·Δ): the original.
    #[default]
    Sigmoid,
    /// max(0, 1 − β·Δ).
    Hinge,
    /// (Δ − 1/(2β))².
    Ipo,
}

/// The adapter's shape, by the names of PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    #[serde(default = "rank")]
    #[schemars(range(min = 1))]
    pub r: u64,
    /// Numerator of the scaling; PEFT's `lora_alpha`.
    #[serde(default = "alpha", alias = "lora_alpha")]
    pub alpha: f64,
    /// The share of the adapter's inputs that is dropped in training; PEFT's `lora_dropout`.
    #[serde(default, alias = "lora_dropout")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: f64,
    /// Which linear layers get an adapter.
    #[serde(default)]
    pub target_modules: TargetModules,
    /// Scales by α/√r instead of α/r (rank-stabilised LoRA).
    #[serde(default)]
    pub use_rslora: bool,
}

impl Lora {
    /// What the adapter's product is multiplied by.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rank is far below 2^52")]
    pub fn scaling(&self) -> f64 {
        let r = self.r as f64;
        self.alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self { r: rank(), alpha: alpha(), dropout: 0.0, target_modules: TargetModules::default(), use_rslora: false }
    }
}

/// Which linear layers get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetModules {
    /// Those whose last part of the name is in the list (`q_proj`, `down_proj`, …).
    Names(Vec<String>),
    /// Every linear layer but the output head.
    AllLinear(AllLinearWord),
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::AllLinear(AllLinearWord::AllLinear)
    }
}

/// The word `all-linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllLinearWord {
    /// Every linear layer but the output head.
    #[serde(rename = "all-linear")]
    AllLinear,
}

/// When to stop early; Transformers' `EarlyStoppingCallback`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Stops after so many measurements in a row without improvement.
    #[serde(default = "patience")]
    #[schemars(range(min = 1))]
    pub patience: u64,
    /// What the validation loss must fall by to count as improvement.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub threshold: f64,
}

/// Why a job file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Larger than any job.
    #[error("the job file has {0} bytes; at most {MAX_JOB_BYTES} are read")]
    TooLarge(usize),
    /// Not JSON, or a field that is unknown, missing or of another type.
    #[error("the job file is not as docs/jobs.md describes it: {0}")]
    Json(#[from] serde_json::Error),
}

impl JobSpec {
    /// Reads a job file.
    ///
    /// # Errors
    /// [`ParseError`] with line, column and the field's name.
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        if json.len() > MAX_JOB_BYTES {
            return Err(ParseError::TooLarge(json.len()));
        }
        Ok(serde_json::from_slice(json)?)
    }
}

const fn seed() -> u64 {
    42
}
const fn one() -> u64 {
    1
}
const fn yes() -> bool {
    true
}
const fn learning_rate() -> f64 {
    1e-4
}
const fn adam_beta1() -> f64 {
    0.9
}
const fn adam_beta2() -> f64 {
    0.999
}
const fn adam_epsilon() -> f64 {
    1e-8
}
const fn max_grad_norm() -> f64 {
    1.0
}
const fn max_length() -> u64 {
    1024
}
const fn rank() -> u64 {
    8
}
const fn alpha() -> f64 {
    16.0
}
const fn patience() -> u64 {
    3
}
const fn beta() -> f64 {
    0.1
}
