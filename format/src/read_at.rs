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

impl<T> Slice<T> {
    /// The `len` bytes of `source` that begin at `start`.
    pub const fn new(source: T, start: u64, len: u64) -> Self {
        Self { source, start, len }
    }

    /// Where in the source `wanted` bytes at `offset` of the window lie; `None` when they leave the window.
    pub(crate) fn locate(&self, wanted: usize, offset: u64) -> Option<u64> {
        let end = offset.checked_add(u64::try_from(wanted).ok()?)?;
        if end > self.len {
            return None;
        }
        self.start.checked_add(offset)
    }

    /// What the window looks into.
    pub(crate) const fn source(&self) -> &T {
        &self.source
    }
}

impl<T: ReadAt> ReadAt for Slice<T> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let at = self.locate(buf.len(), offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.source.read_exact_at(buf, at)
    }
}
