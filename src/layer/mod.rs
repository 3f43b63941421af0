//! Layers: trees of files as deterministic tars.

pub mod tree;
