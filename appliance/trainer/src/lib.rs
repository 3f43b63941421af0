//! Fine-tunes language models from a job file: LoRA, full and DPO, on candle.

#![forbid(unsafe_code)]

pub mod digest;
pub mod gguf;
pub mod merge;
pub mod mlflow;
pub mod shards;
