//! `metrics.jsonl`: a row a step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one optimiser step measured. A resumed run goes on in the same file; rows after the checkpoint that it resumed
/// from are gone then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// The optimiser step, from 1.
    pub step: u64,
    /// How often the training file has been gone through, with fractions.
    pub epoch: f64,
    /// Mean loss over the tokens (DPO: pairs) of this step, before the step.
    pub train_loss: f64,
    /// The learning rate that this step was made with.
    pub learning_rate: f64,
    /// Norm of all gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens of this step that are no padding.
    pub tokens: u64,
    /// Tokens of all steps until here.
    pub trained_tokens: u64,
    /// `tokens` over the seconds that the step took; not reproducible.
    pub tokens_per_second: f64,
    /// Bytes that the process (with a GPU: the device) holds at its peak until here; not reproducible.
    pub memory: u64,
    /// Mean loss on the validation file, on steps that measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// DPO: mean reward β·(log π − log π_ref) of the chosen answers.
    #[serde(default, rename = "rewards/chosen", skip_serializing_if = "Option::is_none")]
    pub rewards_chosen: Option<f64>,
    /// DPO: the same of the rejected ones.
    #[serde(default, rename = "rewards/rejected", skip_serializing_if = "Option::is_none")]
    pub rewards_rejected: Option<f64>,
    /// DPO: the share of pairs whose chosen answer has the higher reward.
    #[serde(default, rename = "rewards/accuracies", skip_serializing_if = "Option::is_none")]
    pub rewards_accuracies: Option<f64>,
}
