//! The file that becomes the artifact, and how bytes get into it.

use gap_format::WriteAt;
use rustix::{
    fs::{Advice, OFlags, fadvise},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    num::NonZeroU64,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The file of an artifact. Weights are written to it past the page cache where its file system can: the artifact is
/// synced before it gets its name anyway, so that pages for it would only be filled, written and pushed out again.
#[derive(Debug)]
pub struct Output<'a> {
    file: &'a File,
    direct: Option<File>,
    refused: AtomicBool,
}

impl<'a> Output<'a> {
    /// Writes to `file`.
    pub fn new(file: &'a File) -> Self {
        // The name may be anybody's by now; the descriptor is ours.
        let node = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(node).ok();
        Self { file, direct, refused: AtomicBool::new(false) }
    }

    /// The file, for all that goes through the page cache.
    pub const fn file(&self) -> &'a File {
        self.file
    }

    /// Writes bytes that may be read again soon, and has the system take them to the disk meanwhile: the artifact is synced
    /// before it gets its name.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        // Asked to drop pages that are not on the disk yet, Linux begins to write them, waits for none and keeps them.
        let _ = fadvise(self.file, offset, NonZeroU64::new(bytes.len() as u64), Advice::DontNeed);
        Ok(())
    }

    /// Writes bytes that are not read again soon.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_bulk(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed)) {
            match direct.write_all_at(bytes, offset) {
                // Addresses or lengths do not suit this file system or its device; they will not do so later either.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.file.write_all_at(bytes, offset)
    }
}

/// Gathers writes that follow one another, like the blocks of each level of a hash tree, into larger ones.
pub(super) struct Gathered<T> {
    target: T,
    /// What was not handed on yet, by where it ends.
    runs: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl<T: WriteAt> Gathered<T> {
    /// Length at which a run of bytes is handed on.
    const RUN: usize = 1 << 20;

    pub fn new(target: T) -> Self {
        Self { target, runs: Mutex::default() }
    }

    /// Hands everything on.
    pub fn flush(self) -> io::Result<()> {
        let runs = self.runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        runs.iter().try_for_each(|(end, run)| self.target.write_all_at(run, end - run.len() as u64))
    }
}

impl<T: WriteAt> WriteAt for Gathered<T> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = runs.remove(&offset).unwrap_or_default();
        run.extend_from_slice(buf);
        if run.len() >= Self::RUN {
            return self.target.write_all_at(&run, end - run.len() as u64);
        }
        runs.insert(end, run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes where and how long each write was.
    #[derive(Default)]
    struct Noted(Mutex<Vec<(u64, usize)>>, Mutex<Vec<u8>>);

    impl WriteAt for Noted {
        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.0.lock().unwrap().push((offset, buf.len()));
            self.1.write_all_at(buf, offset)
        }
    }

    #[test]
    fn interleaved_levels_of_a_tree_become_few_writes() {
        let noted = Noted::default();
        let gathered = Gathered::new(&noted);
        for block in 0..300_u64 {
            gathered.write_all_at(&[block as u8; 4096], 8192 + block * 4096).unwrap();
            if block % 128 == 0 {
                gathered.write_all_at(&[200; 2048], 4096 + block / 128 * 2048).unwrap();
            }
        }
        gathered.flush().unwrap();
        let sizes = noted.0.into_inner().unwrap();
        assert_eq!(sizes, [(8192, 1 << 20), (4096, 3 * 2048), (8192 + (1 << 20), 44 * 4096)]);
        let bytes = noted.1.into_inner().unwrap();
        assert!((0..300).all(|block| bytes[8192 + block * 4096 + 4095] == block as u8));
    }

    #[test]
    fn bulk_of_any_length_and_place_is_written() {
        let file = tempfile::tempfile().unwrap();
        let output = Output::new(&file);
        for (offset, len) in [(0, 4096), (4096, 100), (4196, 5000)] {
            output.write_bulk(&vec![7; len], offset).unwrap();
        }
        let mut back = vec![0; 9196];
        gap_format::ReadAt::read_exact_at(&file, &mut back, 0).unwrap();
        assert!(back.iter().all(|&byte| byte == 7));
    }
}
