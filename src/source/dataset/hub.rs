//! Data sets of a hub: pinned to a commit, every file of it by its digest.

use super::{DatasetError, Fetching, LockedDataFile, LockedDataset, LockedRepository};
use crate::{
    recipe::HubRepository,
    source::{
        http::{Client, Progress},
        model::{self, Hub, LockedModelFile, Pinned, RepoKind, Repository, Selection},
    },
    store::Store,
};

/// The files that are selected of a repository, and the commit that its revision is.
pub(super) fn lock(
    named: &HubRepository,
    selection: &Selection,
    fetching: &Fetching<'_>,
    store: &Store,
) -> Result<(LockedRepository, Vec<LockedDataFile>), DatasetError> {
    let client = fetching.client.ok_or(DatasetError::Offline)?;
    let hub = Hub::find(client, named.endpoint.as_deref())?;
    let repository = Repository { kind: RepoKind::Dataset, name: &named.repo };
    let found = model::resolve(&hub, repository, &named.revision, selection, store, fetching.progress)?;
    let file = |LockedModelFile { path, size, sha256, git: _ }| LockedDataFile { name: path, size, sha256 };
    let files = found.files.into_iter().map(file).collect();
    let repository = LockedRepository {
        repo: found.repo,
        revision: found.revision,
        commit: found.commit,
        gated: found.gated,
        licenses: found.licenses,
    };
    Ok((repository, files))
}

/// Fetches the files into the store.
pub(super) fn fetch(
    named: &HubRepository,
    rows: &LockedDataset,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), DatasetError> {
    let Some(locked) = &rows.repository else { return Ok(()) };
    let hub = Hub::find(client, named.endpoint.as_deref())?;
    let repository = Repository { kind: RepoKind::Dataset, name: &locked.repo };
    let files = rows.files.iter().map(|file| Pinned { path: &file.name, size: file.size, sha256: file.sha256 });
    Ok(model::fetch(&hub, repository, &locked.commit, files, store, progress)?)
}
