//! What a lock leads to in the store.

use super::{Inputs, Lock};
use crate::source::model::LockedModel;
use gap_format::Digest;
use std::collections::BTreeSet;

impl Lock {
    /// The digests of all sources that its rows pin.
    pub fn sources(&self) -> BTreeSet<Digest> {
        self.layers.iter().flat_map(|layer| layer.inputs.sources()).collect()
    }
}

impl Inputs {
    /// The digests of the sources of one layer; files from beside the recipe are not kept in the store.
    fn sources(&self) -> Vec<Digest> {
        match self {
            Self::Debian(rows) => rows.packages.iter().map(|package| package.sha256).collect(),
            Self::Cargo(rows) => rows.crates.iter().map(|krate| krate.sha256).collect(),
            Self::Dataset(rows) => rows.files.iter().map(|file| file.sha256).collect(),
            Self::Wheels(rows) => rows.files().map(|file| file.sha256).collect(),
            Self::Model(LockedModel::Hub(model)) => model.files.iter().map(|file| file.sha256).collect(),
            Self::Model(LockedModel::Directory(_)) | Self::Files(_) | Self::Run(_) => Vec::new(),
        }
    }
}
