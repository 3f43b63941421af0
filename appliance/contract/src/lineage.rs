//! `lineage.json`: what a result was made of.

use crate::job::JobSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What an adapter or model was made of, and how. Digests are SHA-256 in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lineage {
    /// The form of this file: 1.
    pub version: u64,
    /// The model that was trained on.
    pub base: Base,
    /// The adapter that training started from, by the digest of its `adapter_model.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The files with examples.
    pub data: Vec<DataFile>,
    /// The job with every default filled in.
    pub job: JobSpec,
    /// The program that trained.
    pub engine: Engine,
    /// Seconds since 1970 when the first run began.
    pub started_at: i64,
    /// Seconds since 1970 when the last step was done.
    pub finished_at: i64,
    /// What was done.
    pub trained: Trained,
    /// The files that came out, relative to the output directory, with their digests.
    pub result: BTreeMap<PathBuf, String>,
    /// What was measured on the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<Evaluation>,
    /// Where it was put into service, the oldest first. An appliance adds to this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<Deployment>,
}

/// A result that was put into service under a stable name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    /// The stable name.
    pub name: String,
    /// When, in seconds since 1970.
    pub deployed_at: i64,
    /// The release that it was deployed on.
    pub release: Release,
    /// What its maker calls each GPU of the machine; empty without one.
    pub gpus: Vec<String>,
    /// Version of the GPUs' driver; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// A release of an appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its index, which is what its signatures are over.
    pub digest: String,
}

/// The base model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Base {
    /// Name of the directory, without the path to it.
    pub name: String,
    /// `architectures[0]` of its `config.json`.
    pub architecture: String,
    /// SHA-256 over the lines `digest␠␠name\n` (as `sha256sum` prints them) of `config.json` and every `*.safetensors`,
    /// sorted by name.
    pub digest: String,
}

/// One file with examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataFile {
    /// What it was used for.
    pub role: Role,
    /// Name of the file, without the path to it.
    pub name: String,
    /// Its digest.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Examples in it.
    pub examples: u64,
    /// Examples of which something was cut off.
    pub truncated: u64,
}

/// What a file with examples was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Trained on.
    Training,
    /// Measured on while training.
    Validation,
}

/// The program that trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Engine {
    /// `gap-train`, `trl`.
    pub name: String,
    /// Versions of it and of the libraries that decide about numbers.
    pub versions: BTreeMap<String, String>,
    /// `cpu`, or the GPUs' names.
    pub device: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trained {
    /// Optimiser steps made.
    pub steps: u64,
    /// The step that the result is of: the best one with early stopping, else the last.
    pub result_step: u64,
    /// Tokens gone through.
    pub tokens: u64,
    /// Parameters that were trained.
    pub trainable_parameters: u64,
    /// Parameters of the model with them.
    pub parameters: u64,
    /// Loss of the last step.
    pub train_loss: f64,
    /// Validation loss of the result, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
}

/// One measurement on a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// What was measured (`perplexity`, `exact_match`, …).
    pub metric: String,
    /// The value.
    pub value: f64,
    /// 95 % interval, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Digest of the file that it was measured on.
    pub data_sha256: String,
    /// Examples measured.
    pub examples: u64,
}
