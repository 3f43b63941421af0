//! Layers: trees of files as deterministic tars.

pub mod cargo;
pub mod tar;
pub mod tree;
