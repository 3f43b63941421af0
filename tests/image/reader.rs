//! A small reader of the blob, written from the format's documentation and not from the writer.

use crate::{
    entry::{Entries, Entry, assert_same, meant},
    layers::Image,
    sample,
};
use gapimage::{
    image::{erofs::ErofsPlan, merge::merge},
    layer::{
        tar::{IndexEntry, IndexKind, LayerIndex},
        tree::Meta,
    },
};
use std::collections::BTreeMap;

fn le<const N: usize>(data: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&data[at..at + N]);
    u64::from_le_bytes(bytes)
}

struct Reader<'a> {
    image: &'a Image,
    /// First block in the unified address space and number of blocks of each layer.
    devices: Vec<(u64, u64)>,
    root: u64,
}

/// The tree that the blob and the layers hold.
pub fn parse(image: &Image) -> Entries {
    let sb = &image.blob[1024..1152];
    assert_eq!(le::<4>(sb, 0), 0xE0F5_E1E2);
    assert_eq!(le::<1>(sb, 12), 12, "blocks of 4 KiB");
    assert_eq!(le::<4>(sb, 36), image.blob.len() as u64 / 4096);
    assert_eq!(le::<8>(sb, 16), image.tree.inodes().len() as u64);
    let table = le::<2>(sb, 88) as usize * 128;
    let devices = (0..le::<2>(sb, 86) as usize)
        .map(|number| {
            (le::<4>(&image.blob, table + number * 128 + 68), le::<4>(&image.blob, table + number * 128 + 64))
        })
        .collect();
    let reader = Reader { image, devices, root: le::<2>(sb, 14) };
    let mut entries = Entries::new();
    let mut seen = BTreeMap::new();
    reader.walk(reader.root, reader.root, Vec::new(), &mut entries, &mut seen);
    entries
}

impl Reader<'_> {
    fn walk(&self, nid: u64, parent: u64, path: Vec<u8>, entries: &mut Entries, seen: &mut BTreeMap<u64, Vec<u8>>) {
        let at = nid as usize * 32;
        let inode = &self.image.blob[at..at + 64];
        let mode = le::<2>(inode, 4) as u32;
        assert_eq!(le::<2>(inode, 0) & 1, 1, "an extended inode");
        let xattr_len = match le::<2>(inode, 2) as usize {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        let data = self.data(at, inode, at + 64 + xattr_len);
        let first_name = seen.entry(nid).or_insert_with(|| path.clone()).clone();
        let mut entry = Entry {
            mode,
            uid: le::<4>(inode, 24) as u32,
            gid: le::<4>(inode, 28) as u32,
            mtime: le::<8>(inode, 32) as i64,
            links: le::<4>(inode, 44),
            xattrs: xattrs(&self.image.blob[at + 64..at + 64 + xattr_len]),
            first_name,
            ..Entry::default()
        };
        match mode & 0o170_000 {
            0o040_000 => {
                for (name, child, file_type) in names(&data) {
                    match name.as_slice() {
                        b"." => assert_eq!(child, nid),
                        b".." => assert_eq!(child, parent),
                        _ => {
                            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                            let below = [&path, separator, &name].concat();
                            self.walk(child, nid, below.clone(), entries, seen);
                            let of_type = [0, 0o100, 0o040, 0o020, 0o060, 0o010, 0o140, 0o120][file_type as usize];
                            assert_eq!(entries[&below].mode >> 9 & 0o170, of_type);
                        }
                    }
                }
            }
            0o020_000 | 0o060_000 => {
                let packed = le::<4>(inode, 16) as u32;
                entry.device = (packed >> 8 & 0xfff, packed & 0xff | packed >> 12 & 0xfff00);
            }
            _ => entry.data = data,
        }
        entries.insert(path, entry);
    }

    fn data(&self, at: usize, inode: &[u8], behind: usize) -> Vec<u8> {
        let size = le::<8>(inode, 8) as usize;
        let place = le::<4>(inode, 16);
        let mut data = Vec::new();
        match le::<2>(inode, 0) >> 1 & 7 {
            0 => (0..size.div_ceil(4096) as u64).for_each(|block| data.extend(self.block(place + block))),
            2 => {
                (0..size as u64 / 4096).for_each(|block| data.extend(self.block(place + block)));
                assert!(!size.is_multiple_of(4096));
                assert_eq!(behind / 4096, (behind + size % 4096 - 1) / 4096, "inline data crosses a block at {at}");
                data.extend(&self.image.blob[behind..behind + size % 4096]);
            }
            4 => {
                let chunk = 1 << (place & 0x1f);
                for block in 0..size.div_ceil(4096) as u64 {
                    let index = behind.next_multiple_of(8) + (block / chunk) as usize * 8;
                    let device = le::<2>(&self.image.blob, index + 2) as usize;
                    let first = le::<4>(&self.image.blob, index + 4);
                    let base = if device == 0 { 0 } else { self.devices[device - 1].0 };
                    data.extend(self.block(base + first + block % chunk));
                }
            }
            other => panic!("layout {other}"),
        }
        assert!(data.get(size..).unwrap().iter().all(|&byte| byte == 0), "other than zeros behind the end of a file");
        data.truncate(size);
        data
    }

    fn block(&self, block: u64) -> &[u8] {
        let device = self.devices.iter().position(|&(first, count)| (first..first + count).contains(&block));
        let (source, block) = match device {
            Some(number) => (&self.image.layers[number], block - self.devices[number].0),
            None => (&self.image.blob, block),
        };
        &source[block as usize * 4096..][..4096]
    }
}

fn names(data: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
    let mut found = Vec::new();
    for block in data.chunks(4096) {
        let count = le::<2>(block, 8) as usize / 12;
        for number in 0..count {
            let from = le::<2>(block, number * 12 + 8) as usize;
            let end = if number + 1 < count { le::<2>(block, number * 12 + 20) as usize } else { block.len() };
            let name = block[from..end].split(|&byte| byte == 0).next().unwrap().to_vec();
            found.push((name, le::<8>(block, number * 12), block[number * 12 + 10]));
        }
    }
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "names are sorted and differ");
    found
}

fn xattrs(area: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = area.get(12..).unwrap_or_default();
    while !rest.is_empty() {
        let (name_len, value_len) = (rest[0] as usize, le::<2>(rest, 2) as usize);
        let prefix = ["", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "", "security."];
        let name = [prefix[rest[1] as usize].as_bytes(), &rest[4..4 + name_len]].concat();
        found.insert(name, rest[4 + name_len..4 + name_len + value_len].to_vec());
        rest = &rest[(4 + name_len + value_len).next_multiple_of(4)..];
    }
    found
}

#[test]
fn the_sample_reads_back_as_it_was_meant() {
    let image = Image::new(&sample::trees());
    assert_same("parsed", &parse(&image), &meant(&image.tree, &image.layers));
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    assert!(Image::new(&sample::trees()).blob == Image::new(&sample::trees()).blob);
}

/// A layer that gapimage would not write: filler that is not zero, and one file of `len` bytes at `offset`.
fn strange_layer(offset: usize, len: usize) -> (Vec<u8>, LayerIndex) {
    let mut bytes = vec![0xEE; 65536];
    bytes[offset..offset + len].fill(7);
    let kind = IndexKind::File { offset: offset as u64, len: len as u64 };
    let entry = IndexEntry { path: sample::path("file"), meta: Meta::root_owned(0o644, 1), kind };
    let size = bytes.len() as u64;
    let other = IndexEntry { path: sample::path("zz"), meta: Meta::default(), kind: IndexKind::Fifo };
    (bytes, LayerIndex { entries: vec![entry, other], size })
}

#[test]
fn data_that_starts_within_a_block_is_copied() {
    for len in [1, 4095, 4096, 4097, 30_000] {
        let image = Image::of_layers(vec![strange_layer(512, len)]);
        assert_same("parsed", &parse(&image), &meant(&image.tree, &image.layers));
    }
}

#[test]
fn a_layer_that_ends_with_more_than_zeros_is_refused() {
    let (bytes, mut index) = strange_layer(4096, 5000);
    index.entries.truncate(1);
    let tree = merge(&[&index]).unwrap();
    let written = ErofsPlan::new(&tree).unwrap().write(&mut Vec::new(), &[&bytes]);
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_missing_layer_is_an_error() {
    let tree = merge(&[&strange_layer(4096, 5000).1]).unwrap();
    let written = ErofsPlan::new(&tree).unwrap().write(&mut Vec::new(), &[]);
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
