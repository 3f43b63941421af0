//! `events.jsonl`: what happened, for people and for whoever runs jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One event; the fields are those of OpenAI's fine-tuning events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// `event-N`, counted from 1 within the output directory.
    pub id: String,
    /// Seconds since 1970 by the machine's clock, which may jump; order is the order of the rows.
    pub created_at: i64,
    /// How bad it is.
    pub level: Level,
    /// A sentence for people.
    pub message: String,
    /// What it is about, for programs.
    #[serde(rename = "type")]
    pub topic: Topic,
    /// Numbers and names that the message speaks of.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub data: serde_json::Map<String, serde_json::Value>,
    /// Why the run failed; on [`Topic::Failed`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As planned.
    Info,
    /// Goes on, but someone should look.
    Warn,
    /// The run ends.
    Error,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// The run began.
    Started,
    /// The run goes on from a checkpoint.
    Resumed,
    /// Examples were cut off or left out, or the data is otherwise noteworthy.
    Data,
    /// Memory that the run needs was estimated, or a batch size chosen.
    Estimate,
    /// A checkpoint was written.
    Checkpoint,
    /// The validation loss was measured.
    Validation,
    /// The validation loss rises.
    ValidationLossRising,
    /// More than 90 % of the memory is in use.
    MemoryNearlyFull,
    /// A loss or gradient is not a finite number.
    NotFinite,
    /// Training stopped early because the validation loss no longer falls.
    EarlyStopping,
    /// The clock went backwards.
    ClockJumped,
    /// Stopped on request after a checkpoint.
    Stopped,
    /// All steps are done.
    Succeeded,
    /// The run failed.
    Failed,
    /// Anything else.
    Message,
}

/// Why a run failed, in the shape of OpenAI's job errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind of reason.
    pub code: FailureCode,
    /// What was attempted, what was found, what to do.
    pub message: String,
    /// The field of the job that it goes back to, if one.
    #[serde(default)]
    pub param: Option<String>,
}

/// Kinds of reasons why a run fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The job's fields contradict each other or the model.
    InvalidJob,
    /// The model's files are damaged or contradict each other.
    InvalidModel,
    /// The adapter is damaged or belongs to another base.
    InvalidAdapter,
    /// The training or validation file cannot be used.
    InvalidData,
    /// It cannot fit into memory.
    OutOfMemory,
    /// Another engine works on the same output directory.
    OutputBusy,
    /// A checkpoint or result could not be written, or a checkpoint not be read.
    Storage,
    /// The loss is not a finite number.
    NotFinite,
    /// Anything else.
    Internal,
}
