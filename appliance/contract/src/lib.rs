//! The job contract: what a job is told and what it leaves behind.
//!
//! A job is one file, [`JobSpec`] (`job.json`). Every engine (`gap-train`, the Python drivers) reads the same file and
//! leaves the same things in the output directory ([`Output`]): a [`Metrics`] row a step, [`Event`]s for people, the
//! adapter or model, checkpoints, and the [`Lineage`] that says what it was made of.
//!
//! ```
//! use gap_contract::JobSpec;
//!
//! let job = JobSpec::parse(
//!     br#"{"model": "/models/qwen", "training_file": "train.jsonl", "output": "out", "n_epochs": 1, "lora": {"r": 8}}"#,
//! )?
//! .check()?;
//! assert_eq!(job.lora.as_ref().map(|lora| lora.scaling()), Some(2.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The JSON Schemas of the files lie in `schema/`, for engines in other languages.

#![forbid(unsafe_code)]

mod check;
mod event;
mod exit;
mod job;
mod lineage;
pub mod memory;
mod metrics;
mod output;
mod schema;

pub use check::{Fault, InvalidJob, Job};
pub use event::{Event, Failure, FailureCode, Level, Topic};
pub use exit::Exit;
pub use job::{
    AllLinearWord, AutoWord, BatchSize, DpoLoss, Dtype, EarlyStopping, JobSpec, Lora, MAX_JOB_BYTES, Method, Optimizer,
    ParseError, Quantization, Scheduler, TargetModules,
};
pub use lineage::{Base, DataFile, Deployment, Engine, Evaluation, Lineage, Release, Role, Trained};
pub use metrics::Metrics;
pub use output::Output;
pub use schema::schemas;
