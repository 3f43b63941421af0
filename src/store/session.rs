//! What one process is writing: a directory of its own under `tmp/`, which others clear away once the process is gone.

use super::error::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    path::Path,
};
use tempfile::TempDir;

/// A directory for unfinished files. A lock on it lasts as long as the process, however that ends.
#[derive(Debug)]
pub(super) struct Session {
    dir: TempDir,
    _alive: File,
}

impl Session {
    /// Clears away what dead processes left in `tmp` and makes a directory for this one.
    pub fn start(tmp: &Path) -> Result<Self, StoreError> {
        let _turn = lock_file(&tmp.with_extension("lock"), FlockOperation::LockExclusive)?;
        sweep(tmp)?;
        let failed = || StoreError::io("making a directory for unfinished files in", tmp);
        let dir = tempfile::Builder::new().prefix("session-").tempdir_in(tmp).map_err(failed())?;
        let alive = File::open(dir.path()).map_err(failed())?;
        flock(&alive, FlockOperation::LockExclusive).map_err(|error| failed()(error.into()))?;
        Ok(Self { dir, _alive: alive })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the directories of processes that are gone. Nobody else is making one while `tmp.lock` is held.
fn sweep(tmp: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(tmp).map_err(StoreError::io("listing", tmp))? {
        let path = entry.map_err(StoreError::io("listing", tmp))?.path();
        let Ok(dir) = File::open(&path) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).map_err(StoreError::io("removing the remains of a killed build", &path))?;
        }
    }
    Ok(())
}

/// Opens (or makes) a file and locks it; the lock ends with the file.
pub(super) fn lock_file(path: &Path, operation: FlockOperation) -> Result<File, StoreError> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(StoreError::io("opening the lock file", path))?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StoreError::io("locking", path)(error.into())),
        }
    }
}
