//! How much GPU memory training and serving a model takes, from first principles.
//!
//! What is counted, and against which measurements it was held, is in `docs/check.md`. All sizes are bytes on one GPU.

mod own;
mod serving;
mod shape;
#[cfg(test)]
mod tests;
mod training;

pub use serving::{ServingPlan, pass, serving};
pub use shape::{Family, Shape, ShapeError};
pub use training::{TrainingPlan, training};

use std::fmt;

/// What CUDA's context, its libraries and their workspaces take before the first tensor. An allowance, not a
/// measurement.
const CONTEXT: u64 = 768 << 20;
/// What the collectives of several GPUs buffer. An allowance, not a measurement.
const COLLECTIVES: u64 = 512 << 20;

/// Memory that a job takes on each of its GPUs at its peak, by what holds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Weights, and the copies of them that are computed with.
    pub weights: u64,
    /// Gradients that are there at the peak.
    pub gradients: u64,
    /// What the optimizer remembers.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass, and what is being worked on.
    pub activations: u64,
    /// Keys and values of the sequences that are being served.
    pub cache: u64,
    /// CUDA itself.
    pub context: u64,
}

impl Estimate {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.tensors().saturating_add(self.context)
    }

    /// All but CUDA itself: what PyTorch calls allocated.
    pub const fn tensors(&self) -> u64 {
        self.weights
            .saturating_add(self.gradients)
            .saturating_add(self.optimizer)
            .saturating_add(self.activations)
            .saturating_add(self.cache)
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("key-value cache", self.cache),
            ("CUDA", self.context),
        ];
        for (index, (name, bytes)) in parts.into_iter().filter(|(_, bytes)| *bytes > 0).enumerate() {
            write!(f, "{}{name} {}", if index == 0 { "" } else { ", " }, gigabytes(bytes))?;
        }
        Ok(())
    }
}

/// `12.3 GB`, as data sheets count.
pub fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000_000) / 100_000_000;
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

/// What CUDA takes on each of `gpus`.
const fn context(gpus: u64) -> u64 {
    if gpus > 1 { CONTEXT + COLLECTIVES } else { CONTEXT }
}
