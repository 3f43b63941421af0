//! Pieces of a blob that several threads read at once.

use std::{
    cell::Cell,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// Bytes that travel together; large enough that threads seldom wait for one another.
pub(super) const CHUNK: usize = 2 << 20;
/// Chunks that may be under way.
pub(super) const IN_FLIGHT: usize = 10;
/// Where a buffer begins in memory, for writes past the page cache: a multiple of what any device asks for.
const ALIGNMENT: usize = 4096;

/// Room for one chunk.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// First byte used, the one that is aligned.
    start: usize,
    /// End of the bytes used.
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; CHUNK + ALIGNMENT];
        // Zero-sized steps aside, an alignment of bytes is always reachable; were it not, writes would be buffered.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start, end: start }
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..self.start + CHUNK).unwrap_or_default()
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// A chunk that is being filled.
pub(super) struct Filling(Buffer);

impl Filling {
    /// The part not yet filled.
    pub fn room(&mut self) -> &mut [u8] {
        self.0.room()
    }

    /// Counts the next `count` bytes of the room as filled.
    pub fn advance(&mut self, count: usize) {
        self.0.end += count;
    }

    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        self.0.end == self.0.start + CHUNK
    }
}

/// A full chunk. Its memory goes back to the pool when the last thread has let go of it.
pub(super) struct Chunk {
    /// Where in the blob it begins.
    pub at: u64,
    buffer: Buffer,
    pool: Sender<Buffer>,
}

impl Chunk {
    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.filled()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // The pool is gone when nobody fills chunks any more; then the buffer may go too.
        let _ = self.pool.send(std::mem::take(&mut self.buffer));
    }
}

/// The memory of all chunks under way: it does not grow with a blob, and the next blob gets that of the last.
pub struct Pool {
    give: Sender<Buffer>,
    take: Receiver<Buffer>,
    /// Buffers there are.
    made: Cell<usize>,
}

impl Pool {
    /// A pool that takes memory as it is needed.
    pub fn new() -> Self {
        let (give, take) = channel();
        Self { give, take, made: Cell::new(0) }
    }

    /// A chunk to fill, as soon as there is one. `None` cannot be: the pool itself could still give.
    pub(super) fn empty(&self) -> Option<Filling> {
        let mut buffer = match self.take.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.made.get() < IN_FLIGHT => {
                self.made.set(self.made.get() + 1);
                Buffer::new()
            }
            Err(_) => self.take.recv().ok()?,
        };
        buffer.end = buffer.start;
        Some(Filling(buffer))
    }

    /// What was filled, to be shared; it begins at `at` of the blob.
    pub(super) fn seal(&self, filling: Filling, at: u64) -> Arc<Chunk> {
        Arc::new(Chunk { at, buffer: filling.0, pool: self.give.clone() })
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_came_back_is_taken_before_new() {
        let pool = Pool::new();
        let fill = || {
            let mut filling = pool.empty().unwrap();
            let at = filling.room().as_ptr();
            filling.advance(1);
            (at, pool.seal(filling, 0))
        };
        let under_way: Vec<_> = (0..IN_FLIGHT).map(|_| fill()).collect();
        let places: Vec<_> = under_way.iter().map(|(at, _)| *at).collect();
        drop(under_way);
        assert!((0..2 * IN_FLIGHT).all(|_| places.contains(&fill().0)));
        assert_eq!(pool.made.get(), IN_FLIGHT);
    }
}
