//! One temporary file that holds the contents of many unpacked files.

use crate::layer::tree::Content;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;

/// A shared, unnamed temporary file into which several threads write side by side. It vanishes
/// with the last [`Content`] that points into it.
#[derive(Debug, Clone)]
pub struct Spool {
    file: Arc<File>,
    end: Arc<AtomicU64>,
}

impl Spool {
    /// Makes an empty spool on the file system of `directory`.
    ///
    /// # Errors
    /// What the system said.
    pub fn new_in(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile_in(directory)?), end: Arc::default() })
    }

    /// Copies exactly `len` bytes of `source` into the spool.
    ///
    /// # Errors
    /// What the source or the system said; `UnexpectedEof` if the source ends early.
    pub fn store(&self, source: &mut dyn Read, len: u64, buffer: &mut Vec<u8>) -> io::Result<Content> {
        let offset = self.append(source, len, buffer)?;
        Ok(Content::Slice { file: Arc::clone(&self.file), offset, len })
    }

    /// Where in the spool a content lies; what lies elsewhere is copied in.
    ///
    /// # Errors
    /// What the content or the system said.
    pub fn place_of(&self, content: &Content) -> io::Result<u64> {
        let held = match content {
            Content::Packed(packed) => packed.unpacked()?,
            content => content.clone(),
        };
        match &held {
            Content::Slice { file, offset, .. } if Arc::ptr_eq(file, &self.file) => Ok(*offset),
            held => self.append(&mut held.reader()?, held.len(), &mut Vec::new()),
        }
    }

    /// All that is in the spool by now.
    pub fn whole(&self) -> Content {
        Content::Slice { file: Arc::clone(&self.file), offset: 0, len: self.end.load(Ordering::Relaxed) }
    }

    fn append(&self, source: &mut dyn Read, len: u64, buffer: &mut Vec<u8>) -> io::Result<u64> {
        // Chunks land one after the other, because this file's whole range is reserved at once.
        let offset = self.end.fetch_add(len, Ordering::Relaxed);
        buffer.resize(usize::try_from(len).unwrap_or(CHUNK).min(CHUNK), 0);
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            source.read_exact(chunk)?;
            self.file.write_all_at(chunk, offset + done)?;
            done += want as u64;
        }
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_early_ends_are_errors() {
        let spool = Spool::new_in(&std::env::temp_dir()).unwrap();
        let mut buffer = Vec::new();
        let large = vec![3; CHUNK + 5];
        let first = spool.store(&mut &b"hello"[..], 5, &mut buffer).unwrap();
        let second = spool.store(&mut large.as_slice(), large.len() as u64, &mut buffer).unwrap();
        let empty = spool.store(&mut io::empty(), 0, &mut buffer).unwrap();
        assert_eq!(first.read().unwrap(), b"hello");
        assert_eq!(second.read().unwrap(), large);
        assert!(empty.read().unwrap().is_empty());
        assert_eq!((spool.place_of(&second).unwrap(), spool.whole().len()), (5, 5 + large.len() as u64));
        let copied = spool.place_of(&Content::bytes(*b"elsewhere")).unwrap();
        assert_eq!(spool.whole().part(copied, 9).unwrap().read().unwrap(), b"elsewhere");
        assert!(spool.whole().part(copied, 10).is_none());
        assert!(spool.store(&mut &b"ab"[..], 3, &mut buffer).is_err());
    }
}
