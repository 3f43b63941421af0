//! Layers: trees of files as deterministic tars.

pub mod tar;
pub mod tree;
