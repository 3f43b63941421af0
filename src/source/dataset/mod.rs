//! Data sets: files beside the recipe, at an address or of a hub, pinned by their digests.

mod address;
mod beside;
mod error;
mod hub;
#[cfg(test)]
mod tests;

pub use error::DatasetError;

use super::{
    http::{Client, Progress},
    model::{GitId, Selection, path_contradiction},
};
use crate::{
    recipe::{DatasetLayer, DatasetSource, RepoName, is_revision},
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
    /// Where on a hub the files come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<LockedRepository>,
    /// The files, sorted by name.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedDataFile>,
}

/// A repository of a hub as the lock pins it. Holds no host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedRepository {
    /// The repository.
    pub repo: RepoName,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: GitId,
    /// Whether the hub gives it only to those who accepted its terms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
    /// Licences that its card names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDataFile {
    /// The name that problems and the data card give it: its path in the recipe or in its repository, or the last word of its
    /// address.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl LockedDataset {
    /// Whether these are still the files that the recipe names; always so for those at an address, which it names by
    /// digest, and for those of a commit.
    ///
    /// # Errors
    /// [`DatasetError`] if files beside the recipe cannot be read.
    pub fn is_current(&self, layer: &DatasetLayer, store: &Store) -> Result<bool, DatasetError> {
        let files = match &layer.source {
            DatasetSource::Path(path) => beside::lock(path, store)?,
            DatasetSource::Url { .. } | DatasetSource::Hub { .. } => self.files.clone(),
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
            DatasetSource::Url { .. } | DatasetSource::Hub { .. } => {
                Ok(self.files.iter().map(|file| Input::new(&file.name, &store.source_path(&file.sha256))).collect())
            }
        }
    }

    /// The first thing in the rows that cannot be.
    pub fn contradiction(&self) -> Option<String> {
        if let Some(repository) = &self.repository {
            if !is_revision(&repository.revision) {
                return Some("the revision is not allowed".to_owned());
            }
            return path_contradiction(self.files.iter().map(|file| file.name.as_str()));
        }
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

/// Pins the files of a data set. Those at an address are fetched; of those of a hub what is small.
///
/// # Errors
/// [`DatasetError`].
pub fn resolve(layer: &DatasetLayer, fetching: &Fetching<'_>, store: &Store) -> Result<LockedDataset, DatasetError> {
    let (repository, files) = match &layer.source {
        DatasetSource::Path(path) => (None, beside::lock(path, store)?),
        DatasetSource::Url { url, sha256 } => (None, vec![address::lock(url, sha256, fetching, store)?]),
        DatasetSource::Hub { repository, include, exclude } => {
            let selection = Selection::of_data(include, exclude)?;
            let (repository, files) = hub::lock(repository, &selection, fetching, store)?;
            (Some(repository), files)
        }
    };
    Ok(LockedDataset { tokenizer: beside::tokenizer(layer, store)?, repository, files })
}

/// Fetches the files of a data set that does not lie beside the recipe into the store.
///
/// # Errors
/// [`DatasetError`] if one cannot be fetched, or is another one than is locked.
pub fn fetch(
    source: &DatasetSource,
    rows: &LockedDataset,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), DatasetError> {
    match source {
        DatasetSource::Path(_) => Ok(()),
        DatasetSource::Url { url, .. } => {
            rows.files.iter().try_for_each(|file| address::download(url, file, client, store, progress))
        }
        DatasetSource::Hub { repository, .. } => hub::fetch(repository, rows, client, store, progress),
    }
}
