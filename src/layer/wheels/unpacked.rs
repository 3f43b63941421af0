//! What wheels unpack to, kept in the store as one file a wheel, so that each is unpacked once whatever layers it comes into.
//!
//! The file holds the members one after another in the order of the archive's directory, and appears when each was
//! compared with `RECORD`. Who reads it compares again: a crash of the machine may have left anything.

use crate::{
    source::wheels::archive::Member,
    store::{Store, StoreError},
};
use gap_format::{Digest, ReadAt};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};
use tempfile::NamedTempFile;

/// What it is called in the store.
const NAME: &str = "unpacked";
/// What the file is called in its directory.
const FILE: &str = "files";
/// Bytes of wheels that are kept. Less is unpacked faster than it is looked for; more takes room that is dearer than the time.
const KEPT: RangeInclusive<u64> = 1 << 20..=256 << 20;

/// What one wheel unpacks to.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Where the file is or will be.
    path: PathBuf,
    /// Where each member begins in it.
    offsets: Vec<u64>,
    /// The file, if it is whole.
    whole: OnceLock<File>,
    growing: Mutex<Option<Growing>>,
}

/// The file before it is whole.
#[derive(Debug)]
struct Growing {
    file: NamedTempFile,
    /// Members that are not in it yet.
    missing: BTreeSet<usize>,
}

impl Unpacked {
    /// Finds what the wheel of this digest unpacked to, or begins to keep the members that are `wanted` by number; `None`
    /// for a wheel that is not kept.
    ///
    /// # Errors
    /// What the store said.
    pub fn new(
        store: &Store,
        wheel: &Digest,
        members: &[Member],
        wanted: BTreeSet<usize>,
    ) -> Result<Option<Self>, StoreError> {
        let mut len = 0_u64;
        let mut offsets = Vec::with_capacity(members.len());
        for member in members {
            offsets.push(len);
            len = len.saturating_add(member.size);
        }
        if !KEPT.contains(&len) || wanted.is_empty() {
            return Ok(None);
        }
        let path = store.cache_dir(NAME, wheel)?.join(FILE);
        let whole = OnceLock::new();
        let found = File::open(&path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.len() == len));
        let growing = match found {
            Some(file) => {
                let _ = whole.set(file);
                None
            }
            None => {
                let failed = || StoreError::io("making a file in", store.session_dir());
                let file = NamedTempFile::new_in(store.session_dir()).map_err(failed())?;
                file.as_file().set_len(len).map_err(failed())?;
                Some(Growing { file, missing: wanted })
            }
        };
        Ok(Some(Self { path, offsets, whole, growing: Mutex::new(growing) }))
    }

    /// Reads a member of `len` bytes, if the file is whole.
    pub fn reader(&self, number: usize, len: u64) -> Option<impl Read> {
        let (file, at) = (self.whole.get()?, *self.offsets.get(number)?);
        Some(InPlace { file, at, end: at.checked_add(len)? })
    }

    /// Takes bytes of a member that lie `skip` bytes behind its begin. What cannot be kept is unpacked again another time.
    pub fn take(&self, number: usize, skip: u64, bytes: &[u8]) {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(begin) = self.offsets.get(number) else { return };
        let taken = growing.as_ref().map(|growing| growing.file.as_file().write_all_at(bytes, begin + skip));
        if let Some(Err(_)) = taken {
            *growing = None;
        }
    }

    /// Notes that a member was taken whole and is as it should be. The last makes the file whole.
    pub fn finish(&self, number: usize) {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last =
            growing.as_mut().is_some_and(|growing| growing.missing.remove(&number) && growing.missing.is_empty());
        if is_last
            && let Some(Growing { file, .. }) = growing.take()
            && let Ok(file) = file.persist(&self.path)
        {
            let _ = self.whole.set(file);
        }
    }

    /// Forgets the file, which turned out to be damaged.
    pub fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Forgets what the wheel of this digest unpacked to, because something made of it was not as it should be.
///
/// # Errors
/// [`StoreError::Io`] if it is there and cannot be removed.
pub fn forget(store: &Store, wheel: &Digest) -> Result<(), StoreError> {
    store.forget(NAME, wheel)
}

/// A part of a file, in order.
struct InPlace<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for InPlace<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        ReadAt::read_exact_at(self.file, buf.get_mut(..count).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
