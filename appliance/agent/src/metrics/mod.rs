//! Metrics in Prometheus' text format (version 0.0.4): GPUs under DCGM's names, and the appliance's own.

mod dcgm;
mod text;

pub use dcgm::{Host, render as render_gpus};
pub use text::{Kind, MEDIA_TYPE, Page};
