//! The subcommands, one a file.

pub mod export;
pub mod merge;
pub mod mlflow;
