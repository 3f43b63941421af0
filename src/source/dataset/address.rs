//! Data sets at an address: one file, which the recipe names by its digest.

use super::{DatasetError, Fetching, LockedDataFile};
use crate::{
    source::http::{Client, Download, Progress},
    store::{Downloads, Store},
};
use gap_format::Digest;
use std::fs;

/// The file, which is in the store then if it is to be fetched.
pub(super) fn lock(
    url: &str,
    sha256: &Digest,
    fetching: &Fetching<'_>,
    store: &Store,
) -> Result<LockedDataFile, DatasetError> {
    let row = |size| LockedDataFile { name: name(url).to_owned(), size, sha256: *sha256 };
    if let Ok(metadata) = fs::metadata(store.source_path(sha256)) {
        return Ok(row(metadata.len()));
    }
    let client = fetching.client.ok_or(DatasetError::Offline)?;
    let file = row(client.length(url)?);
    if fetching.contents {
        download(url, &file, client, store, fetching.progress)?;
    }
    Ok(file)
}

/// Fetches the file into the store, if it is not there; refuses another one than the recipe names.
pub(super) fn download(
    url: &str,
    file: &LockedDataFile,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), DatasetError> {
    let is_here = || store.has_source(&file.sha256, Some(file.size));
    if is_here() {
        return Ok(());
    }
    let (directory, _alone) = store.downloads(Downloads::Addresses)?;
    // Another process may have fetched it meanwhile.
    if is_here() {
        return Ok(());
    }
    let (mirror, path) = url.rsplit_once('/').unwrap_or((url, ""));
    let item =
        Download { mirrors: vec![mirror.to_owned()], path: path.to_owned(), size: file.size, sha256: file.sha256 };
    let fetched = client.download(&item, &directory, progress)?;
    Ok(store.adopt_source(&fetched, &file.sha256)?)
}

/// The last word of an address, without query: what the file is called there, and how it holds its rows.
fn name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').find(|word| !word.is_empty()).unwrap_or("data")
}
