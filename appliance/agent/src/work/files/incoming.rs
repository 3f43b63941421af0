//! A file that is being received.

use super::{FilesError, MAX_FILE, Room, content};
use crate::work::storage::sync_directory;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    mem,
    path::PathBuf,
};
use tokio::runtime::Handle;

/// A file that is being received: on the disk, and hashed as it comes.
pub struct Incoming {
    id: String,
    directory: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
    room: Room,
    is_kept: bool,
}

impl Incoming {
    /// Nothing of a file yet, in this directory.
    pub(super) fn create(id: String, directory: PathBuf, room: Room) -> io::Result<Self> {
        let file = File::create_new(content(&directory))?;
        Ok(Self { id, directory, file, hasher: Sha256::new(), bytes: 0, room, is_kept: false })
    }

    /// Its name for machines.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How many bytes came.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of them, in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    /// It is not removed any more.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`FilesError::TooLong`], [`FilesError::NoSpace`], or what the disk said.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(len);
        if self.bytes > MAX_FILE {
            return Err(FilesError::TooLong);
        }
        self.room.take(len)?;
        self.hasher.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    /// Adds all of a file.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn append(&mut self, mut source: impl Read) -> Result<(), FilesError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let len = source.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            self.write(buffer.get(..len).unwrap_or_default())?;
        }
    }

    /// Returns when the file is on the disk, under its name.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        sync_directory(&self.directory)?;
        self.directory.parent().map_or(Ok(()), sync_directory)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let directory = mem::take(&mut self.directory);
        let remove = move || drop(fs::remove_dir_all(directory));
        // Whoever sent it went away: this is a thread that serves, and the file may be long.
        match Handle::try_current() {
            Ok(handle) => drop(handle.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
