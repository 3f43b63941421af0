//! Notes: small things that are only remembered to save work, each under a name and a key.

use super::{Store, error::StoreError};
use gap_format::Digest;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

impl Store {
    /// Remembers `bytes` under a key, over whatever was remembered under it. It appears whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub fn remember(&self, name: &'static str, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        write_small(self, &self.note_path(name, key)?, bytes)
    }

    /// What was remembered under a key; one longer than `limit` bytes, or one that cannot be read, counts as none.
    pub fn recall(&self, name: &'static str, key: &Digest, limit: u64) -> Option<Vec<u8>> {
        let path = self.note_path(name, key).ok()?;
        (fs::metadata(&path).ok()?.len() <= limit).then(|| fs::read(&path).ok()).flatten()
    }

    fn note_path(&self, name: &'static str, key: &Digest) -> Result<PathBuf, StoreError> {
        Ok(self.cache_dir(name, key)?.join("note"))
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
