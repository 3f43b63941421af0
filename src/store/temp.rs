//! Files on their way into the store.

use super::{Area, Store, error::StoreError};
use gap_format::Digest;
use rustix::fs::{Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// What the store took in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Content that is being written and hashed, and that vanishes unless it is committed.
#[derive(Debug)]
pub struct TempBlob<'s> {
    store: &'s Store,
    area: Area,
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl<'s> TempBlob<'s> {
    pub(super) fn new(store: &'s Store, area: Area) -> Result<Self, StoreError> {
        let dir = store.session_dir();
        let file = NamedTempFile::new_in(dir).map_err(StoreError::io("making a file in", dir))?;
        Ok(Self { store, area, file, hasher: Sha256::new(), size: 0 })
    }

    /// Bytes written so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Puts the content in its place under its digest, durably: after a crash it is there whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; nothing is left behind.
    pub fn commit(self) -> Result<Stored, StoreError> {
        let stored = Stored { digest: Digest::from(self.hasher), size: self.size };
        let target = self.store.content_path(self.area, &stored.digest);
        if self.store.open_content(self.area, &stored.digest, Some(stored.size))?.is_some() {
            return Ok(stored);
        }
        persist(self.file, &target, 0o444)?;
        Ok(stored)
    }

    /// Like [`TempBlob::commit`], but refuses any content other than `expected`.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`], and those of [`TempBlob::commit`].
    pub fn commit_as(self, expected: &Digest) -> Result<Stored, StoreError> {
        let found = Digest::from(self.hasher.clone());
        if found != *expected {
            return Err(StoreError::WrongDigest { expected: *expected, found });
        }
        self.commit()
    }
}

impl Write for TempBlob<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.as_file_mut().write(buf)?;
        self.hasher.update(buf.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Moves a finished temporary file to `target`, over whatever is there, durably.
pub(super) fn persist(file: NamedTempFile, target: &Path, mode: u32) -> Result<(), StoreError> {
    let failed = || StoreError::io("writing", target);
    let dir = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed())?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(target).map_err(|error| failed()(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())
}

/// Notes that a file was used now, for the collector of garbage. Not being able to is no error: the file is then only
/// collected earlier.
pub(super) fn touch(file: &File) {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let _ = rustix::fs::futimens(file, &Timestamps { last_access: NOW, last_modification: NOW });
}

/// Where content of this digest lies below `root`.
pub(super) fn sharded(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_hex();
    root.join("sha256").join(hex.get(..2).unwrap_or_default()).join(hex)
}
