//! A file tree in memory: what a layer holds, before it becomes a tar.
//!
//! Every source produces a [`Tree`]; the layer writer consumes it. The order is that of the path's
//! bytes, so nothing depends on the order of a directory or a hash map.

mod packed;
mod path;

pub use packed::{Compared, Packed, Unpack};
pub use path::{NAME_MAX, PATH_MAX, PathError, TreePath};

use gap_format::ReadAt;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// Extended attributes by full name (`security.capability`, `user.…`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Owner, permissions and time of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Meta {
    /// Root-owned, with these permission bits and this time.
    pub fn root_owned(mode: u32, mtime: i64) -> Self {
        Self { mode, mtime, ..Self::default() }
    }
}

/// Where the bytes of a regular file come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// Held in memory.
    Bytes(Arc<[u8]>),
    /// Part of an open file, such as a spool of unpacked packages.
    Slice {
        /// The file that holds the bytes.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// A whole file by name, opened when it is read (weights: never copied beforehand).
    Path {
        /// The file.
        path: Arc<Path>,
        /// Its length when it was looked at; reading fails if it has another by then.
        len: u64,
    },
    /// A file that is unpacked when it is read.
    Packed(Arc<Packed>),
}

impl Content {
    /// Content held in memory.
    pub fn bytes(data: impl Into<Arc<[u8]>>) -> Self {
        Self::Bytes(data.into())
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(data) => data.len() as u64,
            Self::Slice { len, .. } | Self::Path { len, .. } => *len,
            Self::Packed(packed) => packed.size(),
        }
    }

    /// The `len` bytes of what lies in an open file that begin at `at`; `None` where it lies elsewhere or is shorter.
    pub fn part(&self, at: u64, len: u64) -> Option<Self> {
        let Self::Slice { file, offset, len: whole } = self else { return None };
        let end = at.checked_add(len)?;
        let inside = end <= *whole;
        inside.then(|| Self::Slice { file: Arc::clone(file), offset: offset + at, len })
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads everything into memory; for files known to be small.
    ///
    /// # Errors
    /// What the system said; `UnexpectedEof` if the file shrank; `InvalidData` if what is packed is not as it should be.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(data) => Ok(data.to_vec()),
            Self::Slice { file, offset, len } => read_range(file, *offset, *len),
            Self::Path { path, len } => read_range(&File::open(path)?, 0, *len),
            Self::Packed(packed) => {
                let mut data = Vec::new();
                packed.reader()?.read_to_end(&mut data)?;
                if data.len() as u64 != packed.size() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(data)
            }
        }
    }
}

/// How much of two files is compared at once, in bytes.
const COMPARED: usize = 1 << 16;

impl Content {
    /// Whether `other` holds the same bytes; both are read only if nothing cheaper tells.
    ///
    /// # Errors
    /// What the system said; `UnexpectedEof` if a file shrank.
    pub fn same_bytes(&self, other: &Self) -> io::Result<bool> {
        if self.len() != other.len() {
            return Ok(false);
        }
        match (self, other) {
            (Self::Slice { file, offset, .. }, Self::Slice { file: other_file, offset: other_offset, .. })
                if Arc::ptr_eq(file, other_file) && offset == other_offset =>
            {
                return Ok(true);
            }
            (Self::Path { path, .. }, Self::Path { path: other_path, .. }) if path == other_path => return Ok(true),
            _ => {}
        }
        let (ours, theirs) = (self.open()?, other.open()?);
        let (mut left, mut right) = (vec![0; COMPARED], vec![0; COMPARED]);
        for at in (0..self.len()).step_by(COMPARED) {
            let count = usize::try_from(self.len() - at).map_or(COMPARED, |rest| rest.min(COMPARED));
            left.truncate(count);
            right.truncate(count);
            ours.read_exact_at(&mut left, at)?;
            theirs.read_exact_at(&mut right, at)?;
            if left != right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the content from its first byte to its last: for what is packed, less work than opening it.
    ///
    /// # Errors
    /// What the system said; the reader's are those of [`Content::read`].
    pub fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Packed(packed) => packed.reader()?,
            content => Box::new(content.reader_of(0..content.len())?),
        })
    }

    /// Reads these bytes of the content in order; what is packed is unpacked for it.
    ///
    /// # Errors
    /// As of [`Content::reader`].
    pub fn reader_of(&self, range: Range<u64>) -> io::Result<impl Read + use<>> {
        Ok(InOrder { content: self.open()?, at: range.start, end: range.end })
    }

    /// Opens the content for reads at any offset, counted from its own first byte.
    ///
    /// # Errors
    /// What the system said when it opened the file.
    pub fn open(&self) -> io::Result<OpenContent> {
        Ok(OpenContent(match self {
            Self::Bytes(data) => Opened::Memory(Arc::clone(data)),
            Self::Slice { file, offset, .. } => Opened::File(Arc::clone(file), *offset),
            Self::Path { path, .. } => Opened::File(Arc::new(File::open(path)?), 0),
            Self::Packed(packed) => return packed.unpacked()?.open(),
        }))
    }
}

/// [`Content`] ready to be read.
#[derive(Debug)]
pub struct OpenContent(Opened);

#[derive(Debug)]
enum Opened {
    Memory(Arc<[u8]>),
    File(Arc<File>, u64),
}

impl ReadAt for OpenContent {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Opened::Memory(data) => ReadAt::read_exact_at(&**data, buf, offset),
            Opened::File(file, start) => {
                let at = start.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
                FileExt::read_exact_at(&**file, buf, at)
            }
        }
    }
}

/// Reads what is open from one byte to another.
struct InOrder {
    content: OpenContent,
    at: u64,
    end: u64,
}

impl Read for InOrder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buf.len());
        self.content.read_exact_at(buf.get_mut(..count).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn read_range(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut data = vec![0; len];
    FileExt::read_exact_at(file, &mut data, offset)?;
    Ok(data)
}

/// Device numbers of a character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// One node of a tree.
#[derive(Debug, Clone)]
pub enum Node {
    /// A directory. `opaque` hides what lower layers hold at this path (OCI `.wh..wh..opq`).
    Directory {
        /// Owner, mode, time.
        meta: Meta,
        /// Whether lower layers' entries below are hidden.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Owner, mode, time.
        meta: Meta,
        /// Its bytes.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// Owner and time; Linux ignores the mode.
        meta: Meta,
        /// Where it points, uninterpreted.
        target: Vec<u8>,
    },
    /// Another name of a regular file in the same tree.
    HardLink {
        /// The first name; never itself a hard link.
        target: TreePath,
    },
    /// A character device.
    CharDevice {
        /// Owner, mode, time.
        meta: Meta,
        /// Its number.
        device: Device,
    },
    /// A block device.
    BlockDevice {
        /// Owner, mode, time.
        meta: Meta,
        /// Its number.
        device: Device,
    },
    /// A named pipe.
    Fifo {
        /// Owner, mode, time.
        meta: Meta,
    },
    /// Removes what lower layers hold at this path (OCI `.wh.NAME`).
    Whiteout,
}

impl Node {
    /// Owner, mode and time; hard links and whiteouts have none of their own.
    pub const fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Directory { meta, .. }
            | Self::File { meta, .. }
            | Self::Symlink { meta, .. }
            | Self::CharDevice { meta, .. }
            | Self::BlockDevice { meta, .. }
            | Self::Fifo { meta } => Some(meta),
            Self::HardLink { .. } | Self::Whiteout => None,
        }
    }

    /// Owner, mode and time, to change them.
    pub const fn meta_mut(&mut self) -> Option<&mut Meta> {
        match self {
            Self::Directory { meta, .. }
            | Self::File { meta, .. }
            | Self::Symlink { meta, .. }
            | Self::CharDevice { meta, .. }
            | Self::BlockDevice { meta, .. }
            | Self::Fifo { meta } => Some(meta),
            Self::HardLink { .. } | Self::Whiteout => None,
        }
    }
}

/// A tree: nodes by path, parents implied by the path order.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Tree {
    /// A tree with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `node` at `path`, replacing what was there.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Option<Node> {
        self.nodes.insert(path, node)
    }

    /// Takes the node at `path` out (not those below it).
    pub fn remove(&mut self, path: &TreePath) -> Option<Node> {
        self.nodes.remove(path)
    }

    /// The node at `path`.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The content of the file at `path`, by whichever of its names the file is kept.
    pub fn file(&self, path: &TreePath) -> Option<&Content> {
        let node = match self.get(path)? {
            Node::HardLink { target } => self.get(target)?,
            node => node,
        };
        if let Node::File { content, .. } = node { Some(content) } else { None }
    }

    /// The node at `path`, to change it.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// The nodes below `path`, without its own.
    pub fn below(&self, path: &TreePath) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.range(path.below())
    }

    /// All nodes in the order of their paths' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// Bytes of all files; those with several names once.
    pub fn file_bytes(&self) -> u64 {
        let file = |node: &Node| if let Node::File { content, .. } = node { content.len() } else { 0 };
        self.nodes.values().map(file).fold(0, u64::saturating_add)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl IntoIterator for Tree {
    type Item = (TreePath, Node);
    type IntoIter = std::collections::btree_map::IntoIter<TreePath, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.nodes.into_iter()
    }
}

impl FromIterator<(TreePath, Node)> for Tree {
    fn from_iter<I: IntoIterator<Item = (TreePath, Node)>>(nodes: I) -> Self {
        Self { nodes: nodes.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_what_begins_with_the_path_and_a_slash() {
        let node = || Node::Whiteout;
        let tree: Tree = ["a", "a-b", "a/b", "a/b/c", "a0", "b"]
            .map(|path| (TreePath::new(path).unwrap(), node()))
            .into_iter()
            .collect();
        let below =
            |path| tree.below(&TreePath::new(path).unwrap()).map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        assert_eq!(below("a"), ["/a/b", "/a/b/c"]);
        assert_eq!(below("b"), [""; 0]);
        assert_eq!(below("").len(), 6);
    }

    #[test]
    fn equal_bytes_are_seen_wherever_they_lie() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[b"_".as_slice(), &[7; 100_000]].concat()).unwrap();
        let slice = Content::Slice { file: Arc::new(file), offset: 1, len: 100_000 };
        assert!(slice.same_bytes(&Content::bytes(vec![7; 100_000])).unwrap());
        assert!(!slice.same_bytes(&Content::bytes(vec![7; 99_999])).unwrap());
        let mut other = vec![7; 100_000];
        other[99_999] = 8;
        assert!(!slice.same_bytes(&Content::bytes(other)).unwrap());
    }
}
