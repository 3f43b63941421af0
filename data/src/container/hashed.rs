//! A file that is hashed while it is read, with a look at its beginning.

use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, BufRead, Read},
};

const BUFFER: usize = 1 << 18;
/// How much of the beginning is looked at.
const HEAD: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Buffers and hashes what it reads. A byte order mark at the beginning is hashed, and not given out.
pub(crate) struct Hashed {
    file: File,
    hasher: Sha256,
    read: u64,
    buffer: Vec<u8>,
    from: usize,
}

impl Hashed {
    pub fn new(file: File) -> Self {
        Self { file, hasher: Sha256::new(), read: 0, buffer: Vec::new(), from: 0 }
    }

    /// The first bytes, without a byte order mark.
    pub fn head(&mut self) -> io::Result<&[u8]> {
        while self.buffer.len() < HEAD && self.fill()? {}
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.from = BYTE_ORDER_MARK.len();
        }
        Ok(self.buffer.get(self.from..).unwrap_or_default())
    }

    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads to the end; length and digest of the file.
    pub fn finish(mut self) -> io::Result<(u64, Digest)> {
        loop {
            self.buffer.clear();
            if !self.fill()? {
                return Ok((self.read, Digest::from(self.hasher)));
            }
        }
    }

    /// Appends to the buffer; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let at = self.buffer.len();
        self.buffer.resize(at + BUFFER, 0);
        let result = loop {
            match self.file.read(self.buffer.get_mut(at..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        self.buffer.truncate(at + count);
        self.hasher.update(self.buffer.get(at..).unwrap_or_default());
        self.read += count as u64;
        result.map(|count| count > 0)
    }
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        for (to, from) in into.iter_mut().zip(available) {
            *to = *from;
        }
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Hashed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.from >= self.buffer.len() {
            self.buffer.clear();
            self.from = 0;
            self.fill()?;
        }
        Ok(self.buffer.get(self.from..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.from = (self.from + count).min(self.buffer.len());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) fn holding(bytes: &[u8]) -> Hashed {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut hashed = Hashed::new(file.reopen().unwrap());
        hashed.head().unwrap();
        hashed
    }

    #[test]
    fn the_digest_is_that_of_the_file_however_much_was_read() {
        let bytes: Vec<u8> =
            BYTE_ORDER_MARK.iter().copied().chain((0..1_000_000u32).map(|n| (n % 251) as u8)).collect();
        for take in [0, 1, 70_000, 999_999, 2_000_000] {
            let mut hashed = holding(&bytes);
            let mut read = Vec::new();
            hashed.by_ref().take(take).read_to_end(&mut read).unwrap();
            assert!(bytes[3..].starts_with(&read));
            assert_eq!(hashed.finish().unwrap(), (1_000_003, Digest::of(&bytes)), "{take}");
        }
    }
}
