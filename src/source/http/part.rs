//! A download under way.

use super::{CHUNK, Download, HttpError};
use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The bytes of a download so far, in `DIGEST.part`; locked against a second process.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// Bytes so far.
    pub(super) len: u64,
    hasher: Sha256,
}

impl Part {
    /// Opens the part and hashes what it holds; `None` if the whole file is there already.
    pub(super) fn open(item: &Download, target: &Path) -> Result<Option<Self>, HttpError> {
        let path = target.with_extension("part");
        let failed = |source| HttpError::File { path: path.display().to_string(), source };
        loop {
            let is_whole = || target.metadata().is_ok_and(|found| found.is_file() && found.len() == item.size);
            if is_whole() {
                return Ok(None);
            }
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
                .map_err(|error| failed(error.into()))?;
            // Whoever held the lock may have renamed the file by now; then look again.
            if !is_same_file(&file, &path) {
                continue;
            }
            // Or between the first look and the opening, which then made a new file.
            if is_whole() {
                std::fs::remove_file(&path).map_err(failed)?;
                return Ok(None);
            }
            let mut part = Self { file, path: path.clone(), len: 0, hasher: Sha256::new() };
            part.rehash(item.size).map_err(failed)?;
            return Ok(Some(part));
        }
    }

    fn rehash(&mut self, size: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > size {
            self.file.set_len(0)?;
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                read => {
                    self.hasher.update(buffer.get(..read).unwrap_or_default());
                    self.len += read as u64;
                }
            }
        }
    }

    fn failed(&self, source: io::Error) -> HttpError {
        HttpError::File { path: self.path.display().to_string(), source }
    }

    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), HttpError> {
        self.file.write_all(chunk).map_err(|error| self.failed(error))?;
        self.hasher.update(chunk);
        self.len += chunk.len() as u64;
        Ok(())
    }

    pub(super) fn restart(&mut self) -> Result<(), HttpError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|error| self.failed(error))?;
        (self.len, self.hasher) = (0, Sha256::new());
        Ok(())
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::from(self.hasher.clone())
    }

    pub(super) fn finish(self, target: PathBuf) -> Result<PathBuf, HttpError> {
        std::fs::rename(&self.path, &target).map_err(|error| self.failed(error))?;
        Ok(target)
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
