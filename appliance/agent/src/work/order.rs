//! What exactly a job runs, as the queue keeps it: decided at submission, carried out at every start.

use gap_handover::{declared::Place, site::EndpointName};
use gap_jobs::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, num::NonZeroU16};

/// Where a job finds what it works with. All below `/run`, which every job has to itself in memory.
pub mod inside {
    /// The directory of everything.
    pub const ROOT: &str = "/run/job";
    /// `job.json` (docs/jobs.md).
    pub const JOB: &str = "/run/job/job.json";
    /// Files of the GPU driver.
    pub const DRIVER: &str = "/run/job/driver";
    /// The base model.
    pub const MODEL: &str = "/run/job/model";
    /// The adapter on it.
    pub const ADAPTER: &str = "/run/job/adapter";
    /// The training examples.
    pub const TRAINING: &str = "/run/job/training.jsonl";
    /// The examples that are only measured on.
    pub const VALIDATION: &str = "/run/job/validation.jsonl";
    /// Data sets of the release, each in a directory of its name.
    pub const DATA: &str = "/run/job/data";
    /// What the job leaves behind.
    pub const OUTPUT: &str = "/run/job/output";
    /// What the job may keep between its runs.
    pub const CACHE: &str = "/run/job/cache";
    /// The directory of the socket that a server listens on.
    pub const SOCKETS: &str = "/run/job/sockets";
    /// The socket that a server listens on.
    pub const SOCKET: &str = "/run/job/sockets/http.sock";
}

/// What a job runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The declared job that it is made after.
    pub declared: String,
    /// The image that it runs in.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables besides those of the image.
    pub env: BTreeMap<String, String>,
    /// The model that it works on.
    pub model: Option<ModelOrder>,
    /// Where the training examples come from.
    pub training: Option<DataOrder>,
    /// Where the examples come from that are only measured on.
    pub validation: Option<DataOrder>,
    /// Data sets of the release.
    pub datasets: Vec<Place>,
    /// Endpoints of the site that it may reach, and the port of its own loopback for each.
    #[serde(default)]
    pub endpoints: BTreeMap<EndpointName, NonZeroU16>,
    /// `job.json` with the paths that the job sees.
    pub job: Option<Value>,
    /// Whether a person works in it, at a terminal.
    #[serde(default)]
    pub has_terminal: bool,
    /// What whoever submitted it said, for the answers of the API.
    pub asked: Asked,
}

/// A model, and what was trained onto it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOrder {
    /// Its name as it was asked for.
    pub name: String,
    /// The model of the release that all began with.
    pub base: Place,
    /// The job that made the model; none for one of the release.
    pub trained: Option<JobId>,
    /// The job whose whole model takes the place of the base: `trained` itself, or the one whose model that was trained on.
    #[serde(default)]
    pub whole: Option<JobId>,
}

impl ModelOrder {
    /// The jobs that made it: without what one of them left there is no such model.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.trained.iter().chain(&self.whole)
    }

    /// Whether what this job made is part of it.
    pub fn needs(&self, job: &JobId) -> bool {
        self.jobs().any(|one| one == job)
    }

    /// The job whose adapter goes onto the base; none where that is all of the model.
    pub fn adapter(&self) -> Option<&JobId> {
        self.trained.as_ref().filter(|job| self.whole.as_ref() != Some(job))
    }
}

/// Examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataOrder {
    /// An uploaded file that was found good.
    File(String),
    /// A file of a data set of the release.
    Release {
        /// The data set.
        dataset: Place,
        /// Name of the file in it.
        file: String,
    },
}

/// The words of the request that answers repeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// The model.
    pub model: Option<String>,
    /// The training file.
    pub training_file: Option<String>,
    /// The validation file.
    pub validation_file: Option<String>,
    /// OpenAI's `method`.
    pub method: Option<Value>,
    /// OpenAI's `hyperparameters`.
    pub hyperparameters: Map<String, Value>,
    /// OpenAI's `seed`.
    pub seed: Option<u64>,
    /// OpenAI's `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// The name of the model that comes of it.
    pub makes: Option<String>,
}
