//! Data sets: files beside the recipe or at an address, pinned by their digests.

mod address;
mod beside;
mod error;
#[cfg(test)]
mod tests;

pub use address::fetch;
pub use error::DatasetError;

use super::http::{Client, Progress};
use crate::{
    recipe::{DatasetLayer, DatasetSource},
    store::Store,
};
use gap_data::Input;
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The files of a data set as the lock has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDataset {
    /// The digest of the tokenizer that lengths are counted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Digest>,
    /// The files, sorted by name.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedDataFile>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDataFile {
    /// The name that problems and the data card give it: its path in the recipe, or the last word of its address.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl LockedDataset {
    /// Whether these are still the files that the recipe names; always so for those at an address, which it names by
    /// digest.
    ///
    /// # Errors
    /// [`DatasetError`] if files beside the recipe cannot be read.
    pub fn is_current(&self, layer: &DatasetLayer, store: &Store) -> Result<bool, DatasetError> {
        let files = match &layer.source {
            DatasetSource::Path(path) => beside::lock(path, store)?,
            DatasetSource::Url { .. } => self.files.clone(),
        };
        Ok(files == self.files && beside::tokenizer(layer, store)? == self.tokenizer)
    }

    /// The files as inputs of the preparation: where they lie now.
    ///
    /// # Errors
    /// [`DatasetError`] if files beside the recipe cannot be listed.
    pub fn inputs(&self, layer: &DatasetLayer, store: &Store) -> Result<Vec<Input>, DatasetError> {
        match &layer.source {
            DatasetSource::Path(path) => beside::inputs(path),
            DatasetSource::Url { .. } => {
                Ok(self.files.iter().map(|file| Input::new(&file.name, &store.source_path(&file.sha256))).collect())
            }
        }
    }

    /// The first thing in the rows that cannot be.
    pub fn contradiction(&self) -> Option<String> {
        let mut names = BTreeSet::new();
        let twice = self.files.iter().find(|file| !names.insert(&file.name));
        twice.map(|file| format!("the file `{}` is there twice", file.name.escape_debug()))
    }
}

/// What may be fetched, and how.
pub struct Fetching<'a> {
    /// Does the downloads; absent when no connection may be opened.
    pub client: Option<&'a Client>,
    /// Whether files are fetched, or only their lengths asked for.
    pub contents: bool,
    /// Told of bytes fetched.
    pub progress: Progress<'a>,
}

/// Pins the files of a data set. Those at an address are fetched.
///
/// # Errors
/// [`DatasetError`].
pub fn resolve(layer: &DatasetLayer, fetching: &Fetching<'_>, store: &Store) -> Result<LockedDataset, DatasetError> {
    let files = match &layer.source {
        DatasetSource::Path(path) => beside::lock(path, store)?,
        DatasetSource::Url { url, sha256 } => vec![address::lock(url, sha256, fetching, store)?],
    };
    Ok(LockedDataset { tokenizer: beside::tokenizer(layer, store)?, files })
}
