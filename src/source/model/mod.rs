//! Models: from a repository of a hub that speaks Hugging Face's protocol, or from a directory. Data sets come from hubs in
//! the same way ([`RepoKind`]).
//!
//! A revision is resolved to a commit, and every file of it to a size and a SHA-256; downloads name the commit, so a
//! branch that moves on meanwhile changes nothing. The lock holds no host.
//!
//! Large files are known by the SHA-256 that the hub keeps for them (Git LFS). The SHA-256 of small ones is found out by
//! reading them once, checked against their git blob id, while they are locked.

mod api;
mod card;
mod directory;
mod endpoint;
mod error;
mod fetch;
mod git;
mod hub;
mod resolve;
mod select;
mod token;

pub use card::licenses as card_licenses;
pub use directory::{commit_of, licenses_of, list as list_directory};
pub use endpoint::Endpoint;
pub use error::ModelError;
pub use fetch::{Pinned, fetch};
pub use git::GitId;
pub use hub::{Hub, RepoKind, Repository};
pub use resolve::resolve;
pub use select::Selection;
pub use token::Token;

use crate::{
    model::{ModelFile, ModelFiles},
    recipe::{RepoName, is_revision},
    store::Store,
};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most files that a model may have.
pub const FILES_MAX: usize = 20_000;

/// A model as a lock pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum LockedModel {
    /// From a hub: by commit and digests.
    Hub(LockedHubModel),
    /// From a directory: by the layers that it makes.
    Directory(LockedDirectoryModel),
}

/// A model in a directory, by the layers that it makes; their digests cover names and contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDirectoryModel {
    /// Licences that its card names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// One row for each layer, bottom to top.
    #[serde(default, rename = "part", skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<LockedModelPart>,
}

/// One layer of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedModelPart {
    /// Which one.
    pub name: String,
    /// SHA-256 of its tar.
    pub layer: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A model of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedHubModel {
    /// The repository.
    pub repo: RepoName,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: GitId,
    /// Whether the hub gives it only to those who accepted its terms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
    /// Licences that its card names, sorted: the hub's identifiers (`apache-2.0`), or a name and address for `other`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// Its files, sorted by path.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedModelFile>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedModelFile {
    /// Its path in the repository.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Its git blob id; for a large file that of the pointer to it.
    pub git: GitId,
}

impl LockedModel {
    /// Licences that its card names, sorted.
    pub fn licenses(&self) -> &[String] {
        match self {
            Self::Hub(model) => &model.licenses,
            Self::Directory(model) => &model.licenses,
        }
    }

    /// The first thing in the rows that cannot be.
    pub fn contradiction(&self) -> Option<String> {
        match self {
            Self::Hub(model) => model.contradiction(),
            Self::Directory(_) => None,
        }
    }
}

impl LockedHubModel {
    /// The first thing in the rows that cannot be.
    pub fn contradiction(&self) -> Option<String> {
        if !is_revision(&self.revision) {
            return Some("the revision is not allowed".to_owned());
        }
        if self.files.len() > FILES_MAX {
            return Some(format!("there are more than {FILES_MAX} files"));
        }
        path_contradiction(self.files.iter().map(|file| file.path.as_str()))
    }

    /// Its files as they lie in the store, fetched or not.
    pub fn files_in(&self, store: &Store) -> ModelFiles {
        let file = |file: &LockedModelFile| ModelFile::alone(store.source_path(&file.sha256), file.size);
        self.files.iter().map(|locked| (locked.path.clone(), file(locked))).collect()
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&LockedModelFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// What keeps these paths from being the files of one directory, if anything does.
pub(crate) fn path_contradiction<'p>(paths: impl IntoIterator<Item = &'p str>) -> Option<String> {
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        let shown = path.escape_debug();
        if !is_path(path) {
            return Some(format!("the path `{shown}` is not allowed"));
        }
        if !files.insert(path) {
            return Some(format!("the file `{shown}` is there twice"));
        }
        directories.extend(path.match_indices('/').filter_map(|(at, _)| path.get(..at)));
    }
    let both = files.intersection(&directories).next();
    both.map(|path| format!("`{}` is a file and a directory", path.escape_debug()))
}

/// Whether a path stays within the model: relative, without empty, `.` or `..` components, without what some system
/// takes for something else.
pub(crate) fn is_path(path: &str) -> bool {
    path.len() <= 1024
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 200 && !part.starts_with(".wh."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb_or_collide_are_refused() {
        assert_eq!(path_contradiction(["a", "b/c", "b/d.e"]), None);
        for bad in ["", "/a", "a//b", "../a", "a/..", "./a", "a\\b", "a\nb", "a/.wh.b"] {
            assert!(path_contradiction([bad]).is_some(), "{bad}");
        }
        assert!(path_contradiction(["a", "a"]).unwrap().contains("twice"));
        assert!(path_contradiction(["a/b", "a"]).unwrap().contains("a file and a directory"));
    }
}
