//! Fetching locked files into the store.

use super::{Hub, LockedHubModel, LockedModelFile, ModelError, hub::file_path};
use crate::{
    source::http::{Download, HttpError, Progress},
    store::Store,
};
use gap_format::Digest;
use std::collections::BTreeMap;

/// Fetches what of `files` the store lacks, several at once, each checked by size and SHA-256. An interrupted download
/// goes on where it stopped.
///
/// # Errors
/// [`ModelError`]; what was fetched before stays.
pub fn fetch<'f>(
    hub: &Hub,
    model: &LockedHubModel,
    files: impl IntoIterator<Item = &'f LockedModelFile>,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), ModelError> {
    let missing = |file: &&LockedModelFile| !store.has_source(&file.sha256, Some(file.size));
    let files: BTreeMap<Digest, &LockedModelFile> =
        files.into_iter().filter(missing).map(|file| (file.sha256, file)).collect();
    if files.is_empty() {
        return Ok(());
    }
    let wanted = Digest::of(b"models");
    let directory = store.cache_dir("downloads", &wanted)?;
    let _alone = store.build_lock(&wanted, || ())?;
    let files: Vec<&LockedModelFile> = files.into_values().filter(missing).collect();
    // Each file is taken over as soon as it is whole, so an interruption costs at most what was under way.
    hub.client().in_parallel(
        &files,
        |file| file.size,
        |file| {
            let item = Download {
                mirrors: vec![hub.address().to_owned()],
                path: file_path(&model.repo, &model.commit, &file.path),
                size: file.size,
                sha256: file.sha256,
            };
            let path =
                hub.client().download(&item, &directory, progress).map_err(|error| explain(hub, model, file, error))?;
            store.adopt_source(&path, &file.sha256).map_err(ModelError::from)
        },
    )?;
    Ok(())
}

fn explain(hub: &Hub, model: &LockedHubModel, file: &LockedModelFile, error: HttpError) -> ModelError {
    match error {
        HttpError::Digest { expected, found, .. } => {
            ModelError::WrongDigest { repo: model.repo.clone(), path: file.path.clone(), expected, found }
        }
        error => hub.explain_file(&model.repo, &model.commit, &file.path, error),
    }
}
