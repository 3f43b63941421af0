//! dm-verity hash trees: version 1, SHA-256, no salt, no superblock, blocks of 4096 bytes.
//!
//! Specification: the kernel's `Documentation/admin-guide/device-mapper/verity.rst`. A hash block holds the digests of
//! 128 blocks of the level below it, padded with zeros. Levels lie one after another, the top one (a single block)
//! first. The root is the digest of that top block. The tree is what
//! `veritysetup format --no-superblock --salt - --hash sha256 --format 1` writes.

mod root;

pub use root::verify_root;
pub(crate) use root::{CHUNK, OrderedRoot, leaf_digests, read_chunk};

use crate::{Digest, WriteAt};
use sha2::{Digest as _, Sha256};
use std::{io, thread};

/// Bytes in a data block and in a hash block.
pub const BLOCK: u64 = 4096;

const BLOCK_LEN: usize = 4096;
const DIGEST_LEN: usize = 32;
const DIGESTS_PER_BLOCK: u64 = 128;
/// Below this many bytes a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 256 * 1024;

/// Bytes of the hash tree over `data_len` bytes of data.
///
/// `data_len` is a multiple of [`BLOCK`] and at least two blocks; a tree over less has no level and so no bytes.
pub fn tree_len(data_len: u64) -> u64 {
    level_blocks(data_len).iter().sum::<u64>() * BLOCK
}

/// Whether data of this length can be covered: whole blocks, and at least two of them.
///
/// The kernel takes a single block as well, but then there is no tree and nothing to put on a hash device.
pub const fn can_cover(data_len: u64) -> bool {
    data_len.is_multiple_of(BLOCK) && data_len >= 2 * BLOCK
}

/// Number of hash blocks in each level, the one nearest to the data first.
fn level_blocks(data_len: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut below = data_len.div_ceil(BLOCK);
    while below > 1 {
        below = below.div_ceil(DIGESTS_PER_BLOCK);
        levels.push(below);
    }
    levels
}

/// One level under construction.
struct Level {
    /// Digests gathered for the hash block that is being filled.
    gathered: Vec<u8>,
    /// Where in the tree the next full hash block goes, in bytes.
    position: u64,
}

/// Folds digests into the levels above them, keeping one block a level.
struct Fold<S> {
    levels: Vec<Level>,
    root: Option<Digest>,
    sink: S,
}

impl<S: WriteAt> Fold<S> {
    fn new(data_len: u64, sink: S) -> Self {
        let blocks = level_blocks(data_len);
        let mut levels = Vec::with_capacity(blocks.len());
        let mut position = blocks.iter().sum::<u64>() * BLOCK;
        for count in blocks {
            position -= count * BLOCK;
            levels.push(Level { gathered: Vec::with_capacity(BLOCK_LEN), position });
        }
        Self { levels, root: None, sink }
    }

    /// Adds the digest of the next block below `level`; above the top level it is the root.
    fn push(&mut self, level: usize, digest: &[u8; DIGEST_LEN]) -> io::Result<()> {
        let Some(state) = self.levels.get_mut(level) else {
            self.root = Some(Digest::from_bytes(*digest));
            return Ok(());
        };
        state.gathered.extend_from_slice(digest);
        if state.gathered.len() == BLOCK_LEN { self.close_block(level) } else { Ok(()) }
    }

    /// Writes the hash block of `level` that is being filled, and passes its digest up.
    fn close_block(&mut self, level: usize) -> io::Result<()> {
        let Some(state) = self.levels.get_mut(level) else { return Ok(()) };
        state.gathered.resize(BLOCK_LEN, 0);
        self.sink.write_all_at(&state.gathered, state.position)?;
        state.position += BLOCK;
        let digest = Sha256::digest(&state.gathered).into();
        state.gathered.clear();
        self.push(level + 1, &digest)
    }

    fn finish(mut self) -> io::Result<Digest> {
        for level in 0..self.levels.len() {
            if self.levels.get(level).is_some_and(|state| !state.gathered.is_empty()) {
                self.close_block(level)?;
            }
        }
        self.root.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a hash tree needs at least two blocks"))
    }
}

/// Builds the hash tree of data that arrives in order, in pieces of any size.
///
/// Every hash block is written to its place as soon as it is full; memory is one block a level.
///
/// ```
/// use gap_format::{Digest, verity};
/// let data = vec![7; 3 * 4096];
/// let tree = std::sync::Mutex::new(Vec::new());
/// let mut builder = verity::TreeBuilder::new(data.len() as u64, &tree)?;
/// builder.update(&data)?;
/// let root = builder.finish()?;
/// let tree = tree.into_inner().unwrap();
/// assert_eq!(tree.len() as u64, verity::tree_len(data.len() as u64));
/// assert_eq!(root, Digest::of(&tree));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TreeBuilder<S> {
    fold: Fold<S>,
    remaining: u64,
    partial: Vec<u8>,
    threads: usize,
}

impl<S: WriteAt> TreeBuilder<S> {
    /// Starts the tree of `data_len` bytes; it will fill the first [`tree_len`] bytes of `sink`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] unless `data_len` is a multiple of [`BLOCK`] and at least two blocks.
    pub fn new(data_len: u64, sink: S) -> io::Result<Self> {
        if !can_cover(data_len) {
            let message = format!("verity covers whole blocks of {BLOCK} bytes and at least two, not {data_len} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let fold = Fold::new(data_len, sink);
        Ok(Self { fold, remaining: data_len, partial: Vec::with_capacity(BLOCK_LEN), threads: 1 })
    }

    /// Lets [`update`](Self::update) hash large pieces on up to `threads` threads. The tree is the same.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Takes the next bytes of the data.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for more bytes than announced; what the sink said when writing.
    pub fn update(&mut self, mut data: &[u8]) -> io::Result<()> {
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.remaining = self.remaining.checked_sub(len).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "more data than the hash tree was planned for")
        })?;
        if !self.partial.is_empty() {
            let (head, rest) = data.split_at(data.len().min(BLOCK_LEN - self.partial.len()));
            self.partial.extend_from_slice(head);
            data = rest;
            if self.partial.len() == BLOCK_LEN {
                self.fold.push(0, &Sha256::digest(&self.partial).into())?;
                self.partial.clear();
            }
        }
        let (blocks, rest) = data.split_at(data.len() - data.len() % BLOCK_LEN);
        for digest in block_digests(blocks, self.threads) {
            self.fold.push(0, &digest)?;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Writes the blocks not yet full and returns the root.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when fewer bytes came than announced; what the sink said when writing.
    pub fn finish(self) -> io::Result<Digest> {
        if self.remaining > 0 {
            let message = format!("{} bytes of the data of a hash tree are missing", self.remaining);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.fold.finish()
    }
}

/// The digest of every block of `blocks`, in order, on up to `threads` threads.
fn block_digests(blocks: &[u8], threads: usize) -> Vec<[u8; DIGEST_LEN]> {
    let hash = |part: &[u8]| part.chunks(BLOCK_LEN).map(|block| Sha256::digest(block).into()).collect::<Vec<_>>();
    let threads = threads.min(blocks.len() / WORTH_A_THREAD).max(1);
    if threads == 1 {
        return hash(blocks);
    }
    let share = (blocks.len() / BLOCK_LEN).div_ceil(threads) * BLOCK_LEN;
    let (own, others) = blocks.split_at(share);
    thread::scope(|scope| {
        let workers: Vec<_> = others.chunks(share).map(|part| (part, scope.spawn(move || hash(part)))).collect();
        let mut digests = hash(own);
        for (part, worker) in workers {
            // Hashing cannot panic; should it ever, the same work is done here and the result is the same.
            digests.extend(worker.join().unwrap_or_else(|_| hash(part)));
        }
        digests
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Bytes that differ from block to block.
    pub(super) fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 4096 + i % 251) as u8).collect()
    }

    pub(super) fn build(data: &[u8], piece: usize, threads: usize) -> (Digest, Vec<u8>) {
        let tree = Mutex::new(Vec::new());
        let mut builder = TreeBuilder::new(data.len() as u64, &tree).unwrap().threads(threads);
        for part in data.chunks(piece) {
            builder.update(part).unwrap();
        }
        let root = builder.finish().unwrap();
        (root, tree.into_inner().unwrap())
    }

    #[test]
    fn the_tree_is_the_one_veritysetup_makes() {
        // Made with: veritysetup format --no-superblock --salt - --hash sha256 --format 1 DATA TREE
        let known = [
            (
                2,
                "edac19ddfe1965cb25bb6423d33755e3df0518d822ea25e73516e7c72aac46aa",
                "edac19ddfe1965cb25bb6423d33755e3df0518d822ea25e73516e7c72aac46aa",
            ),
            (
                128,
                "a14888f3627611eaafc54d8768960da07544f38c797b796b8cb52e5dcc06aa2a",
                "a14888f3627611eaafc54d8768960da07544f38c797b796b8cb52e5dcc06aa2a",
            ),
            (
                129,
                "7a089b75bf770bafb84d7b7aa812795c63433f378bc3c7d168e95606de577e88",
                "7736d6694bb61a84806e42b081146724fdbdd42575174fe16b1598f04be0b546",
            ),
            (
                16385,
                "7abb0453287e74a7bd145e49a91a418177a32d303ba08a0e2de2fe0b17b2cdad",
                "ae4175f2af632527c4aae9b12669a46eaa7f80b50e62b26650d5f0c1ae1918e0",
            ),
        ];
        for (blocks, root, tree) in known {
            let (our_root, our_tree) = build(&pattern(blocks * 4096), 1 << 20, 2);
            assert_eq!(our_root.to_hex(), root, "root over {blocks} blocks");
            assert_eq!(Digest::of(&our_tree).to_hex(), tree, "tree over {blocks} blocks");
            assert_eq!(our_tree.len() as u64, tree_len(blocks as u64 * 4096));
        }
    }

    #[test]
    fn pieces_and_threads_change_nothing() {
        let data = pattern(300 * 4096);
        let expected = build(&data, data.len(), 1);
        for (piece, threads) in [(1000, 1), (4096, 2), (4097, 3), (700_001, 4), (data.len(), 7)] {
            assert_eq!(build(&data, piece, threads), expected, "{piece} bytes at once on {threads} threads");
        }
    }

    #[test]
    fn lengths_that_cannot_be_covered_are_refused() {
        for len in [0, 1, 4096, 8191, 8193] {
            assert!(TreeBuilder::new(len, Mutex::new(Vec::new())).is_err(), "{len}");
        }
    }

    #[test]
    fn more_or_less_data_than_announced_is_refused() {
        let mut builder = TreeBuilder::new(8192, Mutex::new(Vec::new())).unwrap();
        assert!(builder.update(&[0; 8193]).is_err());
        let mut builder = TreeBuilder::new(8192, Mutex::new(Vec::new())).unwrap();
        builder.update(&[0; 8191]).unwrap();
        assert_eq!(builder.finish().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
