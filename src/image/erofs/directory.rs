//! Directory data: blocks of entries sorted by name, each block with its own names behind its entries.

use super::format::{BLOCK, DIRENT_LEN, Dirent, FileType};
use crate::image::merge::{Children, InodeId};

/// Names of a directory in the order of their bytes, `.` and `..` among them.
pub struct Listing<'a> {
    entries: Vec<(&'a [u8], InodeId)>,
}

impl<'a> Listing<'a> {
    /// The listing of directory `own`, which lies in `parent` and holds `children`.
    pub fn new(children: &'a Children, own: InodeId, parent: InodeId) -> Self {
        let mut entries: Vec<(&[u8], InodeId)> = children.iter().map(|(name, &id)| (name.as_slice(), id)).collect();
        // Not always the first two: `!`, `+` and their like sort before the dot.
        for (name, id) in [(&b"."[..], own), (b"..", parent)] {
            let at = entries.partition_point(|&(other, _)| other < name);
            entries.insert(at, (name, id));
        }
        Self { entries }
    }

    /// Length of the directory's data in bytes.
    pub fn size(&self) -> u64 {
        let (mut full, mut used) = (0, 0);
        for (name, _) in &self.entries {
            let more = entry_len(name);
            if used + more > BLOCK {
                full += BLOCK;
                used = 0;
            }
            used += more;
        }
        full + used
    }

    /// The data, exactly [`Listing::size`] bytes; `inode` gives number and type of each child.
    pub fn encode(&self, inode: impl Fn(InodeId) -> (u64, FileType)) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        let mut rest = self.entries.as_slice();
        while !rest.is_empty() {
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
            let (block, more) = rest.split_at_checked(fitting(rest)).unwrap_or((rest, &[]));
            append_block(block, &inode, &mut out);
            rest = more;
        }
        out
    }
}

fn entry_len(name: &[u8]) -> u64 {
    (DIRENT_LEN + name.len()) as u64
}

/// How many of `entries` one block holds.
fn fitting(entries: &[(&[u8], InodeId)]) -> usize {
    let mut used = 0;
    entries
        .iter()
        .take_while(|(name, _)| {
            used += entry_len(name);
            used <= BLOCK
        })
        .count()
}

fn append_block(entries: &[(&[u8], InodeId)], inode: &impl Fn(InodeId) -> (u64, FileType), out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT_LEN;
    for &(name, id) in entries {
        let (nid, file_type) = inode(id);
        // A block has 4096 bytes, so the offset fits.
        Dirent { nid, name_offset: u16::try_from(name_offset).unwrap_or_default(), file_type }.append_to(out);
        name_offset += name.len();
    }
    for (name, _) in entries {
        out.extend_from_slice(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing_of(children: &Children) -> (u64, Vec<u8>) {
        let listing = Listing::new(children, 0, 0);
        (listing.size(), listing.encode(|id| (id as u64, FileType::Regular)))
    }

    #[test]
    fn names_before_the_dot_come_before_it() {
        let children: Children = [(b"!".to_vec(), 1), (b"...".to_vec(), 2), (b"a".to_vec(), 3)].into();
        let (size, data) = listing_of(&children);
        assert_eq!(data.len() as u64, size);
        assert_eq!(&data[5 * DIRENT_LEN..], b"!......a");
    }

    #[test]
    fn a_block_is_filled_to_the_last_byte_and_no_further() {
        // `.` and `..` take 27 bytes; 15 names of 255 take 4005; one of 52 fills the block.
        let mut children: Children = (0..15).map(|n| (format!("{n:02}{}", "x".repeat(253)).into_bytes(), n)).collect();
        children.insert(vec![b'z'; 52], 99);
        assert_eq!(listing_of(&children).0, BLOCK);
        children.insert(b"zz".repeat(30), 100);
        let (size, data) = listing_of(&children);
        assert_eq!((size, data.len()), (BLOCK + 72, 4096 + 72));
        assert_eq!(data[4096 + 8], DIRENT_LEN as u8, "the second block starts its own table");
    }
}
