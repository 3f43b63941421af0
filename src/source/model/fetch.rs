//! Fetching locked files into the store.

use super::{GitId, Hub, LockedModelFile, ModelError, Repository};
use crate::{
    source::http::{Download, HttpError, Progress},
    store::{Downloads, Store},
};
use gap_format::Digest;
use std::collections::BTreeMap;

/// A file of a commit, and what it must be.
#[derive(Debug, Clone, Copy)]
pub struct Pinned<'f> {
    /// Its path in the repository.
    pub path: &'f str,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl<'f> From<&'f LockedModelFile> for Pinned<'f> {
    fn from(file: &'f LockedModelFile) -> Self {
        Self { path: &file.path, size: file.size, sha256: file.sha256 }
    }
}

/// Fetches what of `files` the store lacks, several at once, each checked by size and SHA-256. An interrupted download
/// goes on where it stopped.
///
/// # Errors
/// [`ModelError`]; what was fetched before stays.
pub fn fetch<'f>(
    hub: &Hub,
    repository: Repository<'_>,
    commit: &GitId,
    files: impl IntoIterator<Item = Pinned<'f>>,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), ModelError> {
    let missing = |file: &Pinned<'_>| !store.has_source(&file.sha256, Some(file.size));
    let files: BTreeMap<Digest, Pinned<'_>> =
        files.into_iter().filter(missing).map(|file| (file.sha256, file)).collect();
    if files.is_empty() {
        return Ok(());
    }
    let (directory, _alone) = store.downloads(Downloads::Hub)?;
    let files: Vec<Pinned<'_>> = files.into_values().filter(missing).collect();
    // Each file is taken over as soon as it is whole, so an interruption costs at most what was under way.
    hub.client().in_parallel(
        &files,
        |file| file.size,
        |file| {
            let item = Download {
                mirrors: vec![hub.address().to_owned()],
                path: repository.file(commit, file.path),
                size: file.size,
                sha256: file.sha256,
            };
            let explained = |error| explain(hub, repository, commit, file, error);
            let path = hub.client().download(&item, &directory, progress).map_err(explained)?;
            store.adopt_source(&path, &file.sha256).map_err(ModelError::from)
        },
    )?;
    Ok(())
}

fn explain(hub: &Hub, repository: Repository<'_>, commit: &GitId, file: &Pinned<'_>, error: HttpError) -> ModelError {
    match error {
        HttpError::Digest { expected, found, .. } => {
            ModelError::WrongDigest { repo: repository.name.clone(), path: file.path.to_owned(), expected, found }
        }
        error => hub.explain_file(repository.name, commit, file.path, error),
    }
}
