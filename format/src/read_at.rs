//! Reading at an offset, from files, block devices and memory alike.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Something whose bytes can be read at any offset, by several threads at once.
pub trait ReadAt: Sync {
    /// Fills `buf` with the bytes that start at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when fewer bytes are there; otherwise what the system said.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

impl<T: ReadAt + Send + ?Sized> ReadAt for std::sync::Arc<T> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}

/// A window into another source: `len` bytes from `start`.
#[derive(Debug, Clone, Copy)]
pub struct Slice<T> {
    source: T,
    start: u64,
    len: u64,
}

impl<T: ReadAt> Slice<T> {
    /// The `len` bytes of `source` that begin at `start`.
    pub const fn new(source: T, start: u64, len: u64) -> Self {
        Self { source, start, len }
    }
}

impl<T: ReadAt> ReadAt for Slice<T> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = u64::try_from(buf.len()).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = offset.checked_add(wanted).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = self.start.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.source.read_exact_at(buf, at)
    }
}
