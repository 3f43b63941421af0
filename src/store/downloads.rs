//! Directories for unfinished downloads, which outlast the process so that the next one goes on where it stopped.

use super::{BuildLock, Store, StoreError};
use gap_format::Digest;
use std::path::PathBuf;

/// Kinds of downloads. Those of one kind lie in one directory, which one process uses at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downloads {
    /// Debian packages.
    Packages,
    /// Python distributions.
    Wheels,
    /// Files of a hub, of models and data sets.
    Hub,
    /// Data sets at an address.
    Addresses,
}

impl Downloads {
    fn key(self) -> Digest {
        Digest::of(match self {
            Self::Packages => b"packages".as_slice(),
            Self::Wheels => b"wheels",
            Self::Hub => b"models",
            Self::Addresses => b"datasets",
        })
    }
}

impl Store {
    /// The directory for this kind, to be used as long as the lock is held. Waits for whoever uses it.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be made or locked.
    pub fn downloads(&self, kind: Downloads) -> Result<(PathBuf, BuildLock), StoreError> {
        let directory = self.cache_dir("downloads", &kind.key())?;
        Ok((directory, self.build_lock(&kind.key(), || ())?))
    }

    /// Waits until no other process downloads things of this kind, which may take hours; `waiting` is called once if one
    /// does. To be called before [`Store::downloads`], where that would wait in silence.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be locked.
    pub fn wait_for_downloads(&self, kind: Downloads, waiting: impl FnOnce()) -> Result<(), StoreError> {
        self.build_lock(&kind.key(), waiting).map(drop)
    }
}
