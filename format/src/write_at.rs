//! Writing at an offset: the counterpart of [`ReadAt`](crate::ReadAt).

use crate::Slice;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

/// Something that takes bytes at any offset, from several threads at once.
pub trait WriteAt: Sync {
    /// Writes all of `buf` so that it starts at `offset`; what lies between the old end and `offset` becomes zero.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::InvalidInput`] when the target cannot hold that offset.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
}

impl WriteAt for File {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }
}

impl WriteAt for Mutex<Vec<u8>> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = self.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes.get_mut(start..end).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(buf);
        Ok(())
    }
}

impl<T: WriteAt + Send + ?Sized> WriteAt for Arc<T> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(buf, offset)
    }
}

impl<T: WriteAt + ?Sized> WriteAt for &T {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(buf, offset)
    }
}

impl<T: WriteAt> WriteAt for Slice<T> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let at = self.locate(buf.len(), offset).ok_or(io::ErrorKind::InvalidInput)?;
        self.source().write_all_at(buf, at)
    }
}

/// A target that drops what it is given, for when only the digest of what was written matters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl WriteAt for Discard {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_memory_becomes_zero() {
        let target = Mutex::new(Vec::new());
        target.write_all_at(b"ab", 3).unwrap();
        assert_eq!(target.into_inner().unwrap(), b"\0\0\0ab");
    }

    #[test]
    fn a_window_takes_no_byte_past_its_end() {
        let target = Mutex::new(Vec::new());
        let window = Slice::new(&target, 10, 4);
        assert!(window.write_all_at(b"abcde", 0).is_err());
        window.write_all_at(b"abcd", 0).unwrap();
        assert_eq!(target.into_inner().unwrap().len(), 14);
    }
}
