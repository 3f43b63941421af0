//! Gathering heads and contents into large writes.

use crate::layer::tree::Content;
use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

/// Size of each write but the last, in bytes.
const CHUNK: usize = 1 << 20;

/// Collects bytes and hands them on in pieces of exactly [`CHUNK`] bytes.
pub(super) struct Chunks<'a> {
    out: &'a mut dyn Write,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, buffer: vec![0; CHUNK].into_boxed_slice(), filled: 0 }
    }

    /// Appends `data`.
    pub(super) fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let room = self.room()?;
            let (now, later) = data.split_at(room.len().min(data.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled += now.len();
            data = later;
        }
        Ok(())
    }

    /// Appends `len` zero bytes.
    pub(super) fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let room = self.room()?;
            let count = room.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            room.iter_mut().take(count).for_each(|byte| *byte = 0);
            self.filled += count;
            len -= count as u64;
        }
        Ok(())
    }

    /// Appends what a file holds.
    pub(super) fn content(&mut self, content: &Content) -> io::Result<()> {
        match content {
            Content::Bytes(data) => self.push(data),
            Content::Slice { file, offset, len } => self.file(file, *offset, *len),
            Content::Path { path, len } => {
                let explain =
                    |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
                let file = File::open(path).map_err(explain)?;
                let found = file.metadata().map_err(explain)?.len();
                if found != *len {
                    let message =
                        format!("{} changed during the build: {len} bytes before, {found} now", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                self.file(&file, 0, *len)
            }
        }
    }

    /// Hands on what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }

    fn file(&mut self, file: &File, mut offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        while offset < end {
            let room = self.room()?;
            let wanted = room.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let (now, _) = room.split_at_mut(wanted);
            file.read_exact_at(now, offset)?;
            self.filled += wanted;
            offset += wanted as u64;
        }
        Ok(())
    }

    /// The free part of the buffer, never empty.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(self.buffer.get_mut(self.filled..).unwrap_or_default())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.buffer.get(..self.filled).unwrap_or_default())?;
        self.filled = 0;
        Ok(())
    }
}
