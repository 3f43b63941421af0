//! Data sets beside the recipe.

use super::{DatasetError, LockedDataFile};
use crate::recipe::{DatasetLayer, FileBeside};
use gap_data::Input;
use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

const CHUNK: usize = 1 << 20;

pub(super) fn inputs(path: &FileBeside) -> Result<Vec<Input>, DatasetError> {
    Ok(Input::find(&path.path, &path.place())?)
}

/// The files as they are now.
pub(super) fn lock(path: &FileBeside) -> Result<Vec<LockedDataFile>, DatasetError> {
    let inputs = inputs(path)?.into_iter().map(|input| {
        let (size, sha256) = hash(&input.path)?;
        Ok(LockedDataFile { name: input.name.to_string(), size, sha256 })
    });
    let mut files = inputs.collect::<Result<Vec<_>, DatasetError>>()?;
    files.sort();
    Ok(files)
}

/// The digest of the tokenizer as it is now.
pub(super) fn tokenizer(layer: &DatasetLayer) -> Result<Option<Digest>, DatasetError> {
    layer.preparation.tokenizer.as_ref().map(|path| hash(&path.place()).map(|(_, digest)| digest)).transpose()
}

fn hash(path: &Path) -> Result<(u64, Digest), DatasetError> {
    let read = || -> io::Result<(u64, Digest)> {
        let mut file = File::open(path)?;
        let (mut hasher, mut size, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok((size, hasher.into())),
                count => {
                    hasher.update(chunk.get(..count).unwrap_or_default());
                    size += count as u64;
                }
            }
        }
    };
    read().map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}
