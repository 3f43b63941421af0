//! Layers: trees of files as deterministic tars.

pub mod cargo;
pub mod configure;
pub mod dataset;
pub mod files;
pub mod model;
pub mod sandbox;
pub mod sink;
pub mod stack;
pub mod tar;
pub mod tree;
pub mod wheels;
