//! A part that is being received.

use super::{MAX_PART, Upload, UploadError};
use crate::work::files::Room;
use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

/// A part that is being received.
pub struct IncomingPart {
    pub(super) id: String,
    pub(super) upload: Upload,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) room: Room,
    pub(super) is_kept: bool,
}

impl IncomingPart {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`UploadError::Part`], [`FilesError::NoSpace`], or what the disk said.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(len);
        if self.bytes > MAX_PART {
            return Err(UploadError::Part);
        }
        self.room.take(len)?;
        Ok(self.file.write_all(bytes)?)
    }
}

impl Drop for IncomingPart {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_file(&self.path));
        }
    }
}
