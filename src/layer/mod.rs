//! Layers: trees of files as deterministic tars.

pub mod index;
pub mod tree;
