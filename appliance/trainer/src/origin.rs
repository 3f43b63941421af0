//! What a run begins from: the digests of its base and of the adapter that it goes on from.

use crate::{digest, error::Failed};
use gap_contract::{FailureCode, Job};
use serde::{Deserialize, Serialize};
use std::thread::{self, JoinHandle};

/// Digests of what a run began from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Of the base, as the lineage has it.
    pub base_sha256: String,
    /// Of the weights of the adapter, if it goes on from one.
    pub adapter_sha256: Option<String>,
}

impl Origin {
    /// Refuses to go on from a checkpoint with another base or adapter than it began with.
    ///
    /// # Errors
    /// Where they differ, with both digests.
    pub fn check(&self, before: &Self, job: &Job) -> Result<(), Failed> {
        let differs = |what: &str, before: &str, found: &str| {
            format!(
                "the {what} changed since the checkpoint: training began with {before} (SHA-256), and it is {found} now; \
                 put back what it began with, or give the job its own `output`"
            )
        };
        if self.base_sha256 != before.base_sha256 {
            let what = format!("base in {}", job.model.display());
            return Err(Failed::model(differs(&what, &before.base_sha256, &self.base_sha256)));
        }
        if self.adapter_sha256 != before.adapter_sha256 {
            let or_none = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".to_owned());
            let message =
                differs("adapter to go on from", &or_none(&before.adapter_sha256), &or_none(&self.adapter_sha256));
            return Err(Failed::new(FailureCode::InvalidAdapter, message).about("adapter"));
        }
        Ok(())
    }
}

/// Digests that are made beside the training: to hash a large base takes longer than to load it.
#[derive(Debug)]
pub struct Hashing(Option<JoinHandle<Result<Origin, Failed>>>);

impl Hashing {
    /// Begins to hash what a job names.
    #[must_use]
    pub fn begin(job: &Job) -> Self {
        let (model, adapter) = (job.model.clone(), job.adapter.clone());
        Self(Some(thread::spawn(move || {
            let base_sha256 = digest::of_model(&model).map_err(|error| Failed::model(error.to_string()))?;
            let adapter = adapter.map(|dir| digest::of_file(&dir.join("adapter_model.safetensors"))).transpose();
            let adapter_sha256 = adapter
                .map_err(|error| Failed::new(FailureCode::InvalidAdapter, error.to_string()).about("adapter"))?;
            Ok(Origin { base_sha256, adapter_sha256 })
        })))
    }

    /// The digests, once: when they are there, or with `wait` when they have come to be.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn take(&mut self, wait: bool) -> Result<Option<Origin>, Failed> {
        match self.0.take_if(|thread| wait || thread.is_finished()) {
            Some(thread) => {
                let gone = |_| Failed::new(FailureCode::Internal, "the thread that hashes the model is gone");
                thread.join().map_err(gone)?.map(Some)
            }
            None => Ok(None),
        }
    }
}
