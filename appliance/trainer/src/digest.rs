//! Digests of files and of whole models.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A file that cannot be hashed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", path.display())]
pub struct DigestError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// [`DigestError`].
pub fn of_file(path: &Path) -> Result<String, DigestError> {
    let failed = |source| DigestError { path: path.to_owned(), source };
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).map_err(failed)?, &mut hash).map_err(failed)?;
    Ok(hex::encode(hash.finalize()))
}

/// The digest of a base as the lineage has it: SHA-256 over the lines `digest  name` of `config.json` and every
/// `*.safetensors`, sorted by name.
///
/// # Errors
/// [`DigestError`].
pub fn of_model(dir: &Path) -> Result<String, DigestError> {
    let failed = |source| DigestError { path: dir.to_owned(), source };
    let mut names = vec!["config.json".to_owned()];
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            names.push(name);
        }
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(format!("{}  {name}\n", of_file(&dir.join(&name))?));
    }
    Ok(hex::encode(hash.finalize()))
}

/// The digest of some files of a model directory: SHA-256 over the lines `digest  name` of those that are there, in the
/// order of `names`.
///
/// # Errors
/// [`DigestError`].
pub fn of_files(dir: &Path, names: &[&str]) -> Result<String, DigestError> {
    let mut hash = Sha256::new();
    for name in names {
        let path = dir.join(name);
        if path.exists() {
            hash.update(format!("{}  {name}\n", of_file(&path)?));
        }
    }
    Ok(hex::encode(hash.finalize()))
}
