//! Fetching locked packages into the store.

use super::{LockedPackage, deb::DebError, mirror};
use crate::{
    source::http::{Client, Download, HttpError, Progress},
    store::{Downloads, Store, StoreError},
};
use std::collections::BTreeMap;

/// Why packages cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// See [`mirror::MirrorError`].
    #[error(transparent)]
    Mirror(#[from] mirror::MirrorError),
    /// See [`HttpError`].
    #[error(transparent)]
    Http(#[from] HttpError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Fetches what of `packages` the store lacks, several at once, each checked by size and digest. An interrupted download
/// goes on where it stopped. `mirrors` are those of the recipe; without any, environment or host decide.
///
/// # Errors
/// [`FetchError`]; what was fetched before stays.
pub fn fetch_packages<'p>(
    packages: impl IntoIterator<Item = &'p LockedPackage>,
    mirrors: &[String],
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    let mut known = BTreeMap::new();
    let mut items = BTreeMap::new();
    for package in packages {
        if store.has_source(&package.sha256, Some(package.size)) {
            continue;
        }
        if !known.contains_key(&package.archive) {
            known.insert(package.archive.clone(), mirror::find(mirrors, &package.archive)?);
        }
        let mirrors = known.get(&package.archive).cloned().unwrap_or_default();
        let item = Download { mirrors, path: package.path.clone(), size: package.size, sha256: package.sha256 };
        items.insert(package.sha256, item);
    }
    if items.is_empty() {
        return Ok(());
    }
    let (directory, _alone) = store.downloads(Downloads::Packages)?;
    let items: Vec<Download> =
        items.into_values().filter(|item| !store.has_source(&item.sha256, Some(item.size))).collect();
    let paths = client.download_all(&items, &directory, progress)?;
    for (item, path) in items.iter().zip(paths) {
        store.adopt_source(&path, &item.sha256)?;
    }
    Ok(())
}

/// Removes a package from the store that turned out to be damaged there, so that it is fetched again.
///
/// # Errors
/// [`StoreError`] if it cannot be removed.
pub fn discard_damaged(store: &Store, error: &DebError) -> Result<(), StoreError> {
    match error {
        DebError::Digest { expected, .. } => store.discard_source(expected),
        DebError::Package { source, .. } => discard_damaged(store, source),
        _ => Ok(()),
    }
}
