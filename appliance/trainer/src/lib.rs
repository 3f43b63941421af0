//! Fine-tunes language models from a job file: LoRA, full and DPO, on candle.
//!
//! [`run`] is the whole of a job; the other modules are its parts: [`data`] makes batches of rows, [`objective`] says
//! what is optimised, [`optimizer`] and [`schedule`] how, [`checkpoint`] and [`journal`] keep what was done.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod data;
pub mod digest;
pub mod disk;
pub mod error;
pub mod eval;
pub mod files;
pub mod gguf;
pub mod init;
pub mod journal;
pub mod memory;
pub mod merge;
pub mod mlflow;
pub mod objective;
pub mod optimizer;
pub mod origin;
pub mod plan;
pub mod result;
pub mod run;
pub mod schedule;
pub mod shards;
pub mod tensors;
