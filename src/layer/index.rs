//! What a finished layer tar holds: its entries in tar order, with the place of each file's bytes.

use super::tree::{Device, Meta, TreePath};

/// The entries of one layer tar.
#[derive(Debug, Clone, Default)]
pub struct LayerIndex {
    /// Every entry, in tar order.
    pub entries: Vec<IndexEntry>,
    /// Length of the whole tar in bytes.
    pub size: u64,
}

/// One entry of a layer tar.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Where it lies in the tree.
    pub path: TreePath,
    /// Owner, mode, time and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: IndexKind,
}

/// What an entry of a layer tar is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexKind {
    /// A directory; `opaque` hides what lower layers hold below it.
    Directory {
        /// Whether lower layers' entries below are hidden.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// First byte of its data within the tar.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    HardLink(TreePath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// Removes what lower layers hold at this path.
    Whiteout,
}
