//! Bytes on their way from or to somewhere, hashed as they pass.

use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};

/// Reads from `T`, or writes to it, and hashes (SHA-256) what passes.
pub struct Hashing<T> {
    inner: T,
    hasher: Sha256,
}

impl<T> Hashing<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The digest of all that passed.
    pub fn digest(self) -> Digest {
        self.hasher.into()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(buf.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(buf.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passed_is_hashed() {
        let mut reading = Hashing::new(b"abcdef".as_slice());
        reading.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(reading.digest(), Digest::of(b"abc"));
        let mut room = [0; 4];
        let mut writing = Hashing::new(room.as_mut_slice());
        assert_eq!(writing.write(b"abcdef").unwrap(), 4);
        assert_eq!(writing.digest(), Digest::of(b"abcd"));
    }
}
