//! Data sets beside the recipe.

use super::{DatasetError, LockedDataFile};
use crate::{
    recipe::{DatasetLayer, FileBeside, TokenizerSource},
    store::Store,
};
use gap_data::Input;
use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

const CHUNK: usize = 1 << 20;
/// Files of this many bytes are read again only when they changed.
const LARGE: u64 = 16 << 20;
/// Where digests of large files are remembered.
const NOTES: &str = "data-digests";

pub(super) fn inputs(path: &FileBeside) -> Result<Vec<Input>, DatasetError> {
    Ok(Input::find(&path.path, &path.place())?)
}

/// The files as they are now.
pub(super) fn lock(path: &FileBeside, store: &Store) -> Result<Vec<LockedDataFile>, DatasetError> {
    let inputs = inputs(path)?.into_iter().map(|input| {
        let (size, sha256) = hash(&input.path, store)?;
        Ok(LockedDataFile { name: input.name.to_string(), size, sha256 })
    });
    let mut files = inputs.collect::<Result<Vec<_>, DatasetError>>()?;
    files.sort();
    Ok(files)
}

/// The digest of the tokenizer beside the recipe as it is now; that of a model is locked with the model.
pub(super) fn tokenizer(layer: &DatasetLayer, store: &Store) -> Result<Option<Digest>, DatasetError> {
    match &layer.preparation.tokenizer {
        Some(TokenizerSource::Beside(path)) => hash(&path.place(), store).map(|(_, digest)| Some(digest)),
        Some(TokenizerSource::Model(_)) | None => Ok(None),
    }
}

/// Length and digest of a file. Those of a large one are remembered by what tells it from its successor.
fn hash(path: &Path, store: &Store) -> Result<(u64, Digest), DatasetError> {
    let unreadable = |source| DatasetError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let note = Digest::of(identity(&metadata).as_bytes());
    if metadata.len() >= LARGE
        && let Some(known) = store.recall(NOTES, &note, 32).and_then(|bytes| bytes.try_into().ok())
    {
        return Ok((metadata.len(), Digest::from_bytes(known)));
    }
    let (size, digest) = read(file).map_err(unreadable)?;
    if size >= LARGE {
        store.remember(NOTES, &note, digest.as_bytes())?;
    }
    Ok((size, digest))
}

fn identity(metadata: &Metadata) -> String {
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    format!("{} {} {} {times:?}", metadata.dev(), metadata.ino(), metadata.len())
}

fn read(mut file: File) -> io::Result<(u64, Digest)> {
    let (mut hasher, mut size, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((size, hasher.into())),
            Ok(count) => {
                hasher.update(chunk.get(..count).unwrap_or_default());
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
