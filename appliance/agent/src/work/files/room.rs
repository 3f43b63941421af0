//! Room on the data volume: looked at before bytes come, and again while they come.
//!
//! The agent is root, so the file system gives it the part as well that is kept for root. That is for the database and the
//! audit log: without them nothing goes on.

use super::FilesError;
use crate::work::storage::Storage;
use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes that stay free whatever is uploaded, besides those that the file system keeps for root.
pub(super) const SPARE: u64 = 256 << 20;
/// Bytes after which it is looked again, whoever brought them.
const EVERY: u64 = 16 << 20;

/// Finds out how many bytes are free.
type Measure = dyn Fn() -> io::Result<u64> + Send + Sync;

/// The room for files. Clones share it.
#[derive(Clone)]
pub struct Room {
    measure: Arc<Measure>,
    /// Bytes that came since it was found that there is room.
    unseen: Arc<AtomicU64>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("unseen", &self.unseen).finish_non_exhaustive()
    }
}

impl Room {
    /// That of the data volume.
    pub(super) fn on(storage: Storage) -> Self {
        Self::measured(move || storage.space().map(|(free, _)| free))
    }

    pub(super) fn measured(measure: impl Fn() -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self { measure: Arc::new(measure), unseen: Arc::default() }
    }

    /// Whether there is room for so many bytes.
    ///
    /// # Errors
    /// [`FilesError::NoSpace`], or what the system said.
    pub fn look(&self, expected: u64) -> Result<(), FilesError> {
        let free = (self.measure)()?;
        if free < expected.saturating_add(SPARE) { Err(FilesError::NoSpace { free }) } else { Ok(()) }
    }

    /// Room for bytes that are about to be written.
    ///
    /// # Errors
    /// As for [`Self::look`].
    pub fn take(&self, bytes: u64) -> Result<(), FilesError> {
        if self.unseen.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < EVERY {
            return Ok(());
        }
        self.look(0)?;
        // Only then: as long as there is no room, everybody looks at once.
        self.unseen.store(0, Ordering::Relaxed);
        Ok(())
    }
}
