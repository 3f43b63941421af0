//! One reading of a medium's head.
//!
//! A medium may answer differently when it is asked twice. Whatever is parsed is read through [`HeadCopy`], which takes
//! each piece from the medium at most once and answers from its own memory ever after.

use gap_format::ReadAt;
use std::{collections::BTreeMap, io, sync::Mutex};

/// Pieces in which the medium is read.
const PIECE: u64 = 128 * 1024;
/// Most that is kept: index, layout, envelope and manifests are under 16 MiB together.
const LIMIT: usize = 32 * 1024 * 1024;

/// A source whose bytes are read once.
pub struct HeadCopy<S> {
    source: S,
    len: u64,
    pieces: Mutex<BTreeMap<u64, Box<[u8]>>>,
}

impl<S: ReadAt> HeadCopy<S> {
    /// A copy, still empty, of a source that is `len` bytes long.
    pub const fn new(source: S, len: u64) -> Self {
        Self { source, len, pieces: Mutex::new(BTreeMap::new()) }
    }

    /// Length of the source in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the source has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies into `buf` from piece number `index`, beginning `skip` bytes into it; says how many bytes that were.
    fn copy(&self, index: u64, skip: usize, buf: &mut [u8]) -> io::Result<usize> {
        let mut pieces = self.pieces.lock().map_err(|_| io::Error::other("the copy of the head is broken"))?;
        if !pieces.contains_key(&index) {
            if pieces.len() * PIECE as usize >= LIMIT {
                return Err(io::Error::other("the head of the medium is longer than any release's"));
            }
            let start = index * PIECE;
            let len = self.len.saturating_sub(start).min(PIECE);
            let mut piece = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            self.source.read_exact_at(&mut piece, start)?;
            pieces.insert(index, piece.into());
        }
        let rest = pieces.get(&index).and_then(|piece| piece.get(skip..)).unwrap_or_default();
        let take = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(take)
    }
}

impl<S: ReadAt> ReadAt for HeadCopy<S> {
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let skip = usize::try_from(offset % PIECE).map_err(io::Error::other)?;
            let done = self.copy(offset / PIECE, skip, buf)?;
            if done == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += done as u64;
            buf = buf.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    /// Answers with another byte each time it is asked.
    struct Liar(AtomicU8);

    impl ReadAt for Liar {
        fn read_exact_at(&self, buf: &mut [u8], _: u64) -> io::Result<()> {
            buf.fill(self.0.fetch_add(1, Ordering::Relaxed));
            Ok(())
        }
    }

    #[test]
    fn a_medium_that_changes_is_seen_as_it_was_first() {
        let head = HeadCopy::new(Liar(AtomicU8::new(7)), 1 << 20);
        let mut first = [0; 100];
        let mut second = [1; 100];
        head.read_exact_at(&mut first, 50).unwrap();
        head.read_exact_at(&mut second, 50).unwrap();
        assert_eq!((first, second), ([7; 100], [7; 100]));
    }

    #[test]
    fn reads_cross_pieces_and_end_with_the_medium() {
        let data: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let head = HeadCopy::new(data.as_slice(), data.len() as u64);
        let mut all = vec![0; 299_000];
        head.read_exact_at(&mut all, 1000).unwrap();
        assert_eq!(all, data[1000..]);
        assert_eq!(head.read_exact_at(&mut [0; 2], 299_999).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn memory_is_bounded() {
        let head = HeadCopy::new(Liar(AtomicU8::new(0)), 1 << 40);
        assert!((0..1000).any(|piece| head.read_exact_at(&mut [0], piece * PIECE).is_err()));
    }
}
