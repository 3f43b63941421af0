//! Where bytes go that come from files: into room that the receiver lends, so that they are copied once.

use gap_format::ReadAt;
use std::io::{self, Write};

/// Takes a stream of bytes into its own memory.
pub trait Sink {
    /// Room for the next bytes; never empty.
    ///
    /// # Errors
    /// Why the bytes before could not be passed on, or that no more are wanted.
    fn room(&mut self) -> io::Result<&mut [u8]>;

    /// Takes the first `count` bytes of the room as the next of the stream; no more than the room has.
    fn advance(&mut self, count: usize);

    /// Appends `data`.
    ///
    /// # Errors
    /// Those of [`Sink::room`].
    fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let room = self.room()?;
            let (now, later) = data.split_at(room.len().min(data.len()));
            let (to, _) = room.split_at_mut(now.len());
            to.copy_from_slice(now);
            self.advance(now.len());
            data = later;
        }
        Ok(())
    }

    /// Appends `len` zero bytes.
    ///
    /// # Errors
    /// Those of [`Sink::room`].
    fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let room = self.room()?;
            let count = room.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let (to, _) = room.split_at_mut(count);
            to.fill(0);
            self.advance(count);
            len -= count as u64;
        }
        Ok(())
    }

    /// Appends the `len` bytes of `source` that begin at `offset`.
    ///
    /// # Errors
    /// Those of [`Sink::room`], and what reading said.
    fn copy(&mut self, source: &dyn ReadAt, mut offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        while offset < end {
            let room = self.room()?;
            let count = room.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let (to, _) = room.split_at_mut(count);
            source.read_exact_at(to, offset)?;
            self.advance(count);
            offset += count as u64;
        }
        Ok(())
    }
}

/// Size of each write of a [`Buffered`] but the last, in bytes.
const PIECE: usize = 1 << 20;

/// Hands a stream on in pieces of 1 MiB.
pub struct Buffered<'a> {
    out: &'a mut dyn Write,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<'a> Buffered<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, buffer: vec![0; PIECE].into_boxed_slice(), filled: 0 }
    }

    /// Hands on what is left.
    ///
    /// # Errors
    /// What writing said.
    pub fn finish(mut self) -> io::Result<()> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> io::Result<()> {
        self.out.write_all(self.buffer.get(..self.filled).unwrap_or_default())?;
        self.filled = 0;
        Ok(())
    }
}

impl Sink for Buffered<'_> {
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.hand_on()?;
        }
        Ok(self.buffer.get_mut(self.filled..).unwrap_or_default())
    }

    fn advance(&mut self, count: usize) {
        self.filled += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes how long each write was.
    struct Pieces(Vec<u8>, Vec<usize>);

    impl Write for Pieces {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(buf);
            self.1.push(buf.len());
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_comes_is_handed_on_in_large_pieces() {
        let source: Vec<u8> = (0..2 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        let mut out = Pieces(Vec::new(), Vec::new());
        let mut sink = Buffered::new(&mut out);
        sink.push(b"head").unwrap();
        sink.copy(&source, 1, source.len() as u64 - 1).unwrap();
        sink.zeros(3).unwrap();
        sink.finish().unwrap();
        assert!(out.0 == [b"head", &source[1..], &[0; 3]].concat());
        assert_eq!(out.1, [PIECE, PIECE, 11]);
    }

    #[test]
    fn a_source_that_ends_early_is_an_error() {
        let mut out = Vec::new();
        assert!(Buffered::new(&mut out).copy(&vec![1, 2, 3], 1, 3).is_err());
    }
}
