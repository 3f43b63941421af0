//! Notes: small things that are only remembered to save work, each under a name and a key.

use super::{Store, error::StoreError, temp::touch};
use gap_format::Digest;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};
use tempfile::NamedTempFile;

/// What a note is called in its directory.
const FILE: &str = "note";

impl Store {
    /// Remembers `bytes` under a key, over whatever was remembered under it. It appears whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub fn remember(&self, name: &'static str, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        write_small(self, &self.cache_dir(name, key)?.join(FILE), bytes)
    }

    /// What was remembered under a key; one longer than `limit` bytes, or one that cannot be read, counts as none.
    pub fn recall(&self, name: &'static str, key: &Digest, limit: u64) -> Option<Vec<u8>> {
        let dir = self.cache_path(name, key);
        let path = dir.join(FILE);
        if fs::metadata(&path).ok()?.len() > limit {
            return None;
        }
        touch(&File::open(&dir).ok()?);
        fs::read(&path).ok()
    }

    /// Forgets what is kept under a key.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it is there and cannot be removed.
    pub fn forget(&self, name: &'static str, key: &Digest) -> Result<(), StoreError> {
        let dir = self.cache_path(name, key);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removing", &dir)(error)),
            _ => Ok(()),
        }
    }
}

/// Writes a small file whole or not at all. After a crash of the machine it may be damaged, so whoever reads it must cope
/// with that.
pub(super) fn write_small(store: &Store, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = || StoreError::io("writing", path);
    let mut file = NamedTempFile::new_in(store.session_dir()).map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    file.persist(path).map(drop).map_err(|error| failed()(error.error))
}
