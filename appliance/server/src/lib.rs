//! Serves language, embedding and classification models over OpenAI's API, from local directories only.

mod api;
mod catalogue;
mod codec;
mod confinement;
mod encoders;
mod engine;
mod listen;
mod memory;
mod metrics;
mod options;
mod start;
mod token_bytes;

pub use options::Options;
pub use start::{StartError, run};

#[cfg(test)]
#[path = "../../lm/tests/reference/mod.rs"]
mod reference;
