//! One common form of a tree, in which what was meant, what was parsed and what was mounted are compared.

use gapimage::{
    image::merge::{InodeKind, Merged},
    layer::tree::Xattrs,
};
use std::collections::BTreeMap;

/// A tree by path, without leading slash; the root is the empty path.
pub type Entries = BTreeMap<Vec<u8>, Entry>;

#[derive(Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub links: u64,
    pub device: (u32, u32),
    pub xattrs: Xattrs,
    /// Content of a file, target of a link.
    pub data: Vec<u8>,
    /// The first path of the same inode.
    pub first_name: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:o} {}:{} @{} ×{} {:?} {:?} {} bytes, {}…, same as {}",
            self.mode,
            self.uid,
            self.gid,
            self.mtime,
            self.links,
            self.device,
            self.xattrs,
            self.data.len(),
            self.data.get(..self.data.len().min(32)).unwrap().escape_ascii(),
            self.first_name.escape_ascii()
        )
    }
}

/// What the merged tree means, with the contents taken from the layers.
pub fn meant(tree: &Merged, layers: &[Vec<u8>]) -> Entries {
    let mut first: BTreeMap<*const _, Vec<u8>> = BTreeMap::new();
    let mut entries = Entries::new();
    for (path, inode) in tree.walk() {
        let first_name = first.entry(std::ptr::from_ref(inode)).or_insert_with(|| path.clone()).clone();
        let mut entry = Entry {
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            mtime: inode.meta.mtime,
            links: inode.links.into(),
            xattrs: inode.meta.xattrs.clone(),
            first_name,
            ..Entry::default()
        };
        let file_type = match &inode.kind {
            InodeKind::Directory(_) => 0o040_000,
            InodeKind::File(extent) => {
                let (from, len) = (extent.offset as usize, extent.len as usize);
                entry.data = layers[extent.layer][from..from + len].to_vec();
                0o100_000
            }
            InodeKind::Symlink(target) => {
                entry.data = target.clone();
                0o120_000
            }
            InodeKind::CharDevice(device) => {
                entry.device = (device.major, device.minor);
                0o020_000
            }
            InodeKind::BlockDevice(device) => {
                entry.device = (device.major, device.minor);
                0o060_000
            }
            InodeKind::Fifo => 0o010_000,
        };
        entry.mode = file_type | inode.meta.mode;
        entries.insert(path, entry);
    }
    entries
}

/// Fails with the first path that differs.
pub fn assert_same(what: &str, found: &Entries, meant: &Entries) {
    for (path, entry) in meant {
        assert_eq!(found.get(path), Some(entry), "{what}: /{}", path.escape_ascii());
    }
    for path in found.keys() {
        assert!(meant.contains_key(path), "{what}: /{} should not be there", path.escape_ascii());
    }
}
