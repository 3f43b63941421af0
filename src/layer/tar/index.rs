//! Finding the entries of a finished layer. The tar may come from anywhere: nothing in it is
//! trusted, and what breaks the rules of a layer is refused rather than guessed at.

use super::{
    BLOCK, LARGE, MIN_SIZE, OPAQUE_MARKER, RECORD, WHITEOUT_PREFIX, capability,
    header::{Block, Header, NAME_LEN, Type},
    pax,
    plan::extended_header,
};
use crate::layer::tree::{Content, Device, Meta, Node, PATH_MAX, Tree, TreePath, Xattrs};
use gap_format::ReadAt;
use std::{collections::HashMap, fs::File, io, sync::Arc};

/// The entries of a layer, in the order of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// One for each member; an opaque marker is a property of its directory.
    pub entries: Vec<IndexEntry>,
    /// Length of the layer, in bytes.
    pub size: u64,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where it belongs.
    pub path: TreePath,
    /// Owner, permissions, time. A hard link repeats its target's; a whiteout has none.
    pub meta: Meta,
    /// What it is.
    pub kind: IndexKind,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexKind {
    /// A directory.
    Directory {
        /// Whether it hides what lower layers hold in it.
        opaque: bool,
    },
    /// A regular file: `len` bytes of the layer from `offset`.
    File {
        /// First byte in the layer; a multiple of 4096 if `len` ≥ 4096.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// Another name of a file earlier in the same layer.
    HardLink(TreePath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// Removes what lower layers hold here.
    Whiteout,
}

impl LayerIndex {
    /// Where the files of [`LARGE`] bytes or more begin, behind all others; the end of the layer when it has none.
    pub fn bulk(&self) -> u64 {
        let offsets = self.entries.iter().filter_map(|entry| match entry.kind {
            IndexKind::File { offset, len } if len >= LARGE => Some(offset),
            _ => None,
        });
        offsets.min().unwrap_or(self.size)
    }

    /// The tree that the layer in `file` from byte `start` holds; contents are parts of `file`.
    pub fn to_tree(&self, file: &Arc<File>, start: u64) -> Tree {
        let nodes = self.entries.iter().map(|entry| {
            let meta = entry.meta.clone();
            let node = match &entry.kind {
                IndexKind::Directory { opaque } => Node::Directory { meta, opaque: *opaque },
                IndexKind::File { offset, len } => {
                    let content =
                        Content::Slice { file: Arc::clone(file), offset: start.saturating_add(*offset), len: *len };
                    Node::File { meta, content }
                }
                IndexKind::Symlink(target) => Node::Symlink { meta, target: target.clone() },
                IndexKind::HardLink(target) => Node::HardLink { target: target.clone() },
                IndexKind::CharDevice(device) => Node::CharDevice { meta, device: *device },
                IndexKind::BlockDevice(device) => Node::BlockDevice { meta, device: *device },
                IndexKind::Fifo => Node::Fifo { meta },
                IndexKind::Whiteout => Node::Whiteout,
            };
            (entry.path.clone(), node)
        });
        nodes.collect()
    }
}

/// Why a file is no layer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It could not be read.
    #[error("cannot read the layer at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It breaks a rule of layers.
    #[error("the layer is malformed: the member at byte {offset} is refused, because {problem}")]
    Member {
        /// Where the member begins.
        offset: u64,
        /// The rule.
        problem: &'static str,
    },
    /// Its length is none that a layer can have.
    #[error("a layer of {size} bytes is malformed: its length must be a multiple of 4096 and at least 8192")]
    Size {
        /// Length found, in bytes.
        size: u64,
    },
}

/// Most members accepted.
const MAX_ENTRIES: usize = 1 << 22;
/// Most bytes of paths, link targets and extended attributes kept.
const MAX_KEPT: usize = 1 << 30;
/// Bytes read at once while looking for headers.
const WINDOW: usize = 1 << 16;

/// Reads the entries of the layer that fills the first `size` bytes of `layer`; file contents are
/// skipped, memory is bounded by what the headers hold.
///
/// # Errors
/// [`IndexError`] if it cannot be read or is not what [`TarPlan`](super::TarPlan) could have written.
pub fn read_index(layer: &dyn ReadAt, size: u64) -> Result<LayerIndex, IndexError> {
    if size < MIN_SIZE || !size.is_multiple_of(BLOCK) {
        return Err(IndexError::Size { size });
    }
    let mut source = Source { layer, size, window: Vec::new(), start: 0 };
    let mut found = Entries::default();
    let mut at = 0;
    loop {
        let start = at;
        let refuse = |problem| IndexError::Member { offset: start, problem };
        let mut block = source.block(at)?.ok_or_else(|| refuse("the end of the archive is missing"))?;
        if block == [0; RECORD as usize] {
            source.end(at)?;
            return Ok(LayerIndex { entries: found.entries, size });
        }
        let mut header = Header::decode(&block).map_err(refuse)?;
        let mut records = pax::Records::default();
        if header.kind == Type::Extended {
            if header != extended_header(header.size) || !(1..=pax::MAX_RECORDS).contains(&header.size) {
                return Err(refuse("its extended header is not in the one form that a layer uses"));
            }
            let len = header.size;
            records = pax::parse(&source.records(at, len)?).map_err(refuse)?;
            at += RECORD + len.next_multiple_of(RECORD);
            block = source.block(at)?.ok_or_else(|| refuse("its header is missing"))?;
            header = Header::decode(&block).map_err(refuse)?;
        }
        let data = at + RECORD;
        at = data
            .checked_add(header.size)
            .and_then(|end| end.checked_next_multiple_of(RECORD))
            .filter(|&end| end < size)
            .ok_or_else(|| refuse("it is longer than the layer"))?;
        found.take(&header, records, data).map_err(refuse)?;
    }
}

/// The layer behind a window, so that many small members cost few reads.
struct Source<'a> {
    layer: &'a dyn ReadAt,
    size: u64,
    window: Vec<u8>,
    start: u64,
}

impl Source<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), IndexError> {
        self.layer.read_exact_at(buffer, offset).map_err(|source| IndexError::Read { offset, source })
    }

    /// The record at `at`; `None` at the end.
    fn block(&mut self, at: u64) -> Result<Option<Block>, IndexError> {
        if at + RECORD > self.size {
            return Ok(None);
        }
        let inside = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if inside.is_none_or(|skip| skip + RECORD as usize > self.window.len()) {
            let len = usize::try_from(self.size - at).map_or(WINDOW, |left| left.min(WINDOW));
            let mut window = std::mem::take(&mut self.window);
            window.resize(len, 0);
            self.read(&mut window, at)?;
            self.window = window;
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.window.get(skip..).and_then(|rest| rest.first_chunk()).copied())
    }

    /// The `len` bytes of records after the header at `at`; their padding must be zero.
    fn records(&self, at: u64, len: u64) -> Result<Vec<u8>, IndexError> {
        let refuse = |problem| IndexError::Member { offset: at, problem };
        let padded = len.next_multiple_of(RECORD);
        if at + RECORD + padded > self.size {
            return Err(refuse("its extended header is longer than the layer"));
        }
        let mut data = vec![0; usize::try_from(padded).map_err(|_| refuse("its extended header is too long"))?];
        self.read(&mut data, at + RECORD)?;
        let padding = data.split_off(usize::try_from(len).unwrap_or(data.len()));
        if padding.iter().any(|&byte| byte != 0) {
            return Err(refuse("its extended header is not padded with zeros"));
        }
        Ok(data)
    }

    /// Checks that the archive ends at `at` with two zero records and the least padding.
    fn end(&self, at: u64) -> Result<(), IndexError> {
        let refuse = |problem| IndexError::Member { offset: at, problem };
        if self.size != (at + 2 * RECORD).next_multiple_of(BLOCK).max(MIN_SIZE) {
            return Err(refuse("the archive ends before the layer does"));
        }
        let mut rest = vec![0; usize::try_from(self.size - at).unwrap_or_default()];
        self.read(&mut rest, at)?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(refuse("something follows the end of the archive"));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Entries {
    entries: Vec<IndexEntry>,
    places: HashMap<TreePath, usize>,
    kept: usize,
}

impl Entries {
    fn take(&mut self, header: &Header<'_>, records: pax::Records, data: u64) -> Result<(), &'static str> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err("the layer has more than four million members");
        }
        let name = long_or_short(records.path, header.name)?;
        let link = long_or_short(records.link, header.link)?;
        check_xattrs(&records.xattrs)?;
        let xattrs: usize = records.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.kept += name.len() + link.len() + xattrs;
        if self.kept > MAX_KEPT {
            return Err("the layer's names and attributes take more than one gigabyte");
        }
        let path = TreePath::new(&name).map_err(|_| "its name climbs out, holds a NUL byte or is too long")?;
        if path.name().starts_with(WHITEOUT_PREFIX) {
            return self.take_removal(header, &name, &path);
        }
        let kind = self.kind(header, link, data)?;
        if name != spelling(&path, &kind) {
            return Err("its name is not in the one form that a layer uses");
        }
        let meta =
            Meta { mode: header.mode, uid: header.uid, gid: header.gid, mtime: header.mtime, xattrs: records.xattrs };
        self.insert(IndexEntry { path, meta, kind })
    }

    fn kind(&self, header: &Header<'_>, link: Vec<u8>, data: u64) -> Result<IndexKind, &'static str> {
        if header.kind != Type::File && header.size != 0 {
            return Err("it has data but is no regular file");
        }
        if !matches!(header.kind, Type::Symlink | Type::HardLink) && !link.is_empty() {
            return Err("it has a link target but is no link");
        }
        let device = Device { major: header.device.0, minor: header.device.1 };
        if !matches!(header.kind, Type::CharDevice | Type::BlockDevice) && header.device != (0, 0) {
            return Err("it has a device number but is no device");
        }
        Ok(match header.kind {
            Type::Directory => IndexKind::Directory { opaque: false },
            Type::File if header.size >= BLOCK && !data.is_multiple_of(BLOCK) => {
                return Err("its data does not begin on a multiple of 4096");
            }
            Type::File => IndexKind::File { offset: data, len: header.size },
            Type::Symlink if link.is_empty() || link.len() >= PATH_MAX || link.contains(&0) => {
                return Err("its link target is empty, too long or holds a NUL byte");
            }
            Type::Symlink => IndexKind::Symlink(link),
            Type::HardLink => {
                let target = TreePath::new(&link).map_err(|_| "its link target climbs out or is too long")?;
                let place = self.places.get(&target).and_then(|&place| self.entries.get(place));
                if target.as_bytes() != link || !matches!(place, Some(IndexEntry { kind: IndexKind::File { .. }, .. }))
                {
                    return Err("it is a hard link to something that is no earlier file of the layer");
                }
                IndexKind::HardLink(target)
            }
            Type::CharDevice => IndexKind::CharDevice(device),
            Type::BlockDevice => IndexKind::BlockDevice(device),
            Type::Fifo => IndexKind::Fifo,
            Type::Extended => return Err("two extended headers follow each other"),
        })
    }

    fn take_removal(&mut self, header: &Header<'_>, name: &[u8], path: &TreePath) -> Result<(), &'static str> {
        let plain = Header { kind: Type::File, mode: 0, uid: 0, gid: 0, size: 0, mtime: 0, link: b"", ..*header };
        if *header != plain || header.device != (0, 0) || name != path.as_bytes() {
            return Err("it is a whiteout that is not an empty file without owner, mode and time");
        }
        let parent = path.parent().unwrap_or_default();
        if path.name() == OPAQUE_MARKER {
            let place = self.places.get(&parent).and_then(|&place| self.entries.get_mut(place));
            let Some(IndexEntry { kind: IndexKind::Directory { opaque: opaque @ false }, .. }) = place else {
                return Err("it is an opaque marker without its directory");
            };
            *opaque = true;
            return Ok(());
        }
        let gone = path.name().strip_prefix(WHITEOUT_PREFIX).unwrap_or_default();
        if gone.is_empty() || gone.starts_with(WHITEOUT_PREFIX) {
            return Err("it is a whiteout of nothing that a layer can hold");
        }
        let path = parent.join(gone).map_err(|_| "it is a whiteout of a name that is too long")?;
        self.insert(IndexEntry { path, meta: Meta::default(), kind: IndexKind::Whiteout })
    }

    fn insert(&mut self, entry: IndexEntry) -> Result<(), &'static str> {
        if entry.path.is_root() && !matches!(entry.kind, IndexKind::Directory { .. }) {
            return Err("the root of the layer is no directory");
        }
        let mut above = entry.path.parent();
        while let Some(parent) = above {
            match self.places.get(&parent).and_then(|&place| self.entries.get(place)) {
                Some(IndexEntry { kind: IndexKind::Directory { .. }, .. }) => break,
                Some(_) => return Err("it lies below something that is no directory"),
                None => above = parent.parent(),
            }
        }
        if self.places.insert(entry.path.clone(), self.entries.len()).is_some() {
            return Err("the layer holds its path twice");
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// The name of a member: from the extended header exactly if the plain header cannot hold it.
fn long_or_short(long: Option<Vec<u8>>, short: &[u8]) -> Result<Vec<u8>, &'static str> {
    match long {
        None => Ok(short.to_vec()),
        Some(long) if long.len() > NAME_LEN && long.starts_with(short) && short.len() == NAME_LEN => Ok(long),
        Some(_) => Err("its plain and its extended header name different things"),
    }
}

fn spelling(path: &TreePath, kind: &IndexKind) -> Vec<u8> {
    match kind {
        IndexKind::Directory { .. } if path.is_root() => b"./".to_vec(),
        IndexKind::Directory { .. } => [path.as_bytes(), b"/"].concat(),
        _ => path.as_bytes().to_vec(),
    }
}

fn check_xattrs(xattrs: &Xattrs) -> Result<(), &'static str> {
    for (name, value) in xattrs {
        if name.iter().any(|byte| b"=\0".contains(byte))
            || name.len() > pax::MAX_XATTR_NAME
            || value.len() > pax::MAX_XATTR
        {
            return Err("it has an extended attribute that Linux cannot hold");
        }
        if name == capability::NAME && capability::normalise(value).is_none_or(|plain| plain != value.as_slice()) {
            return Err("its file capabilities are not revision 2");
        }
    }
    Ok(())
}
