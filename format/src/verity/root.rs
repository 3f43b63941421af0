//! The root of data that is already there, computed on all cores and in no particular order.

use super::{BLOCK, BLOCK_LEN, DIGEST_LEN, Fold, can_cover};
use crate::{Digest, ReadAt, write_at::Discard};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Bytes of data under one hash block of the lowest level.
const LEAF_SPAN: usize = BLOCK_LEN * BLOCK_LEN / DIGEST_LEN;

/// Bytes of data that a worker takes at once: a whole number of lowest-level hash blocks.
pub(crate) const CHUNK: usize = 2 * LEAF_SPAN;

/// The digests of the lowest-level hash blocks over `data`, which starts on a multiple of [`CHUNK`].
pub(crate) fn leaf_digests(data: &[u8]) -> Vec<[u8; DIGEST_LEN]> {
    data.chunks(LEAF_SPAN).map(leaf_digest).collect()
}

/// The digest of the hash block that holds the digests of the blocks of `span`.
fn leaf_digest(span: &[u8]) -> [u8; DIGEST_LEN] {
    let mut leaf = [0; BLOCK_LEN];
    for (slot, block) in leaf.chunks_mut(DIGEST_LEN).zip(span.chunks(BLOCK_LEN)) {
        slot.copy_from_slice(&Sha256::digest(block));
    }
    Sha256::digest(leaf).into()
}

/// Gathers the results of chunks that finish in any order into one root.
pub(crate) struct OrderedRoot {
    state: Mutex<Ordered>,
}

struct Ordered {
    next: u64,
    waiting: BTreeMap<u64, Vec<[u8; DIGEST_LEN]>>,
    fold: Fold<Discard>,
}

impl OrderedRoot {
    /// For data of `data_len` bytes; see [`can_cover`].
    pub(crate) fn new(data_len: u64) -> Self {
        let fold = Fold::new(data_len, Discard);
        Self { state: Mutex::new(Ordered { next: 0, waiting: BTreeMap::new(), fold }) }
    }

    /// Adds what [`leaf_digests`] gave for chunk number `chunk`.
    pub(crate) fn add(&self, chunk: u64, leaves: Vec<[u8; DIGEST_LEN]>) -> io::Result<()> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        state.waiting.insert(chunk, leaves);
        while let Some(leaves) = state.waiting.remove(&state.next) {
            for leaf in leaves {
                state.fold.push(1, &leaf)?;
            }
            state.next += 1;
        }
        Ok(())
    }

    /// The root, once every chunk was added.
    pub(crate) fn finish(self) -> io::Result<Digest> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).fold.finish()
    }
}

/// The verity root of the first `data_len` bytes of `data`, hashed on `threads` threads.
///
/// `progress` is told the number of bytes of each piece that was hashed, from any thread.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] unless `data_len` is a multiple of [`BLOCK`] and at least two blocks; otherwise what
/// reading said.
pub fn verify_root(
    data: &dyn ReadAt,
    data_len: u64,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Digest> {
    if !can_cover(data_len) {
        let message = format!("verity covers whole blocks of {BLOCK} bytes and at least two, not {data_len} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let root = OrderedRoot::new(data_len);
    let next = AtomicU64::new(0);
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(bytes) = read_chunk(data, data_len, chunk, &mut buffer)? else { return Ok(()) };
            root.add(chunk, leaf_digests(bytes))?;
            progress(u64::try_from(bytes.len()).unwrap_or(0));
        }
    };
    let chunks = data_len.div_ceil(u64::try_from(CHUNK).unwrap_or(u64::MAX));
    let threads = u64::try_from(threads).unwrap_or(1).clamp(1, chunks);
    thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        workers.into_iter().fold(own, |so_far, worker| {
            so_far.and(worker.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread stopped"))))
        })
    })?;
    root.finish()
}

/// Reads chunk number `chunk` of the data into `buffer`; `None` past its end.
pub(crate) fn read_chunk<'b>(
    data: &dyn ReadAt,
    data_len: u64,
    chunk: u64,
    buffer: &'b mut [u8],
) -> io::Result<Option<&'b [u8]>> {
    let size = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    let Some(left) = chunk.checked_mul(size).and_then(|start| data_len.checked_sub(start)).filter(|left| *left > 0)
    else {
        return Ok(None);
    };
    let len = usize::try_from(left.min(size)).unwrap_or(buffer.len());
    let Some(part) = buffer.get_mut(..len) else { return Ok(None) };
    data.read_exact_at(part, chunk * size)?;
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{build, pattern};
    use super::*;

    #[test]
    fn the_root_is_the_builders_root_on_any_number_of_threads() {
        for blocks in [2, 127, 128, 129, 256, 257, 1000, 16384 + 129] {
            let data = pattern(blocks * 4096);
            let (expected, _) = build(&data, 1 << 20, 1);
            for threads in [1, 2, 5] {
                let root = verify_root(&data, data.len() as u64, threads, &|_| ()).unwrap();
                assert_eq!(root, expected, "{blocks} blocks on {threads} threads");
            }
        }
    }

    #[test]
    fn missing_data_is_an_error_and_not_a_root() {
        let data = pattern(3 * 4096);
        assert!(verify_root(&data, 4 * 4096, 2, &|_| ()).is_err());
        assert!(verify_root(&data, 4096, 2, &|_| ()).is_err());
    }
}
