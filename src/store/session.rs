//! What one process is writing: a directory of its own under `tmp/`, which others clear away once the process is gone.

use super::error::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
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

/// What a killed process left and the user alone could not remove: directories of a sandbox belong to the user's
/// subordinate ids, or are closed to everybody. It is nobody else's as long as this is held.
#[derive(Debug)]
pub struct Remains {
    path: PathBuf,
    _claim: File,
}

impl Remains {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those in `tmp`.
    pub(super) fn all_in(tmp: &Path) -> Result<Vec<Self>, StoreError> {
        let _turn = lock_file(&tmp.with_extension("lock"), FlockOperation::LockExclusive)?;
        abandoned(tmp)
    }
}

/// The directories of processes that are gone. Nobody else is making one while `tmp.lock` is held.
fn abandoned(tmp: &Path) -> Result<Vec<Remains>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tmp).map_err(StoreError::io("listing", tmp))? {
        let path = entry.map_err(StoreError::io("listing", tmp))?.path();
        let Ok(dir) = File::open(&path) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            found.push(Remains { path, _claim: dir });
        }
    }
    Ok(found)
}

/// Removes what processes that are gone left behind. What cannot be removed is passed over: no command may fail because
/// another was interrupted.
fn sweep(tmp: &Path) -> Result<(), StoreError> {
    for remains in abandoned(tmp)? {
        let _ = fs::remove_dir_all(remains.path());
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
