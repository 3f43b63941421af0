//! A part of a layer: the least that is built, kept and laid down by itself.

use super::Ingredients;
use crate::layer::tree::Tree;
use gap_format::Digest;

/// What one part is made of, before anybody looked whether it is there. Most layers are one part; a layer of many large
/// things (wheels, shards of weights) is several, so that a change costs only what changed.
#[derive(Debug)]
pub struct Part {
    /// Which part of its layer it is; absent where the layer is one part.
    pub name: Option<String>,
    /// Everything that determines its bytes.
    pub ingredients: Ingredients,
    /// What must be in the store before it can be built.
    pub sources: Vec<Wanted>,
    /// What it will hold, where that is known without building it.
    pub tree: Option<Tree>,
    /// Its size in bytes where it must be built: not too low.
    pub estimate: u64,
}

/// A source that is to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
}
