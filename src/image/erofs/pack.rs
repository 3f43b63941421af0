//! Packing of inodes into blocks, so that none that fits into a block crosses a boundary.

use super::format::{BLOCK, INODE_SLOT};
use std::collections::BTreeSet;

/// How many partly filled blocks are kept open. More fill blocks better, fewer keep neighbours together.
const OPEN_BLOCKS: usize = 64;

/// Hands out places in a growing row of blocks.
pub struct Packer {
    /// Free bytes at the end of a block, and its number.
    open: BTreeSet<(u64, u64)>,
    /// Number of the first block not begun.
    next: u64,
}

impl Packer {
    /// A packer whose first `reserved` bytes are taken.
    pub fn new(reserved: u64) -> Self {
        let next = reserved.div_ceil(BLOCK);
        let mut packer = Self { open: BTreeSet::new(), next };
        packer.keep_open(next * BLOCK - reserved, next.saturating_sub(1));
        packer
    }

    /// The offset of a place for `len` bytes: within one block if `len` is at most a block, else from the start
    /// of one. Takes the fullest open block that has room.
    pub fn place(&mut self, len: u64) -> u64 {
        let len = len.next_multiple_of(INODE_SLOT);
        if let Some(&(free, block)) = self.open.range((len, 0)..).next() {
            self.open.remove(&(free, block));
            self.keep_open(free - len, block);
            return (block + 1) * BLOCK - free;
        }
        let first = self.next;
        self.next += len.div_ceil(BLOCK);
        self.keep_open(self.next * BLOCK - (first * BLOCK + len), self.next - 1);
        first * BLOCK
    }

    /// Number of blocks begun.
    pub fn blocks(&self) -> u64 {
        self.next
    }

    fn keep_open(&mut self, free: u64, block: u64) {
        if free > 0 {
            self.open.insert((free, block));
        }
        if self.open.len() > OPEN_BLOCKS {
            self.open.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_fits_into_a_block_crosses_a_boundary_or_overlaps() {
        let mut packer = Packer::new(1280);
        let mut taken = BTreeSet::from([(0, 1280)]);
        let mut len = 1;
        for _ in 0..2000 {
            len = (len * 1103 + 12345) % 4096 + 1;
            let at = packer.place(len);
            assert_eq!(at % INODE_SLOT, 0);
            assert_eq!(at / BLOCK, (at + len - 1) / BLOCK);
            taken.insert((at, at + len));
        }
        let mut end = 0;
        for (from, to) in taken {
            assert!(from >= end, "{from} lies before {end}");
            end = to;
        }
        assert!(end <= packer.blocks() * BLOCK);
    }

    #[test]
    fn what_is_longer_than_a_block_starts_one_and_leaves_its_rest() {
        let mut packer = Packer::new(1280);
        assert_eq!(packer.place(10_000), 4096);
        assert_eq!(packer.place(2272), 4096 + 10_016);
        assert_eq!(packer.place(2816), 1280, "block 0 still has room");
        assert_eq!(packer.place(64), 16384);
    }
}
