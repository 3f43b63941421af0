//! Laying out a tree as a tar, and streaming it.

use super::{
    BLOCK, LARGE, MIN_SIZE, OPAQUE_MARKER, RECORD, WHITEOUT_PREFIX,
    header::{Header, Type},
    index::{IndexEntry, IndexKind, LayerIndex},
    pax,
    stream::write_content,
};
use crate::layer::{
    sink::{Buffered, Sink},
    tree::{Compared, Content, Device, Meta, Node, PATH_MAX, Tree, TreePath},
};
use gap_format::ReadAt;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Why a tree cannot become a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something lies below a node that is no directory.
    #[error("{path} lies below {parent}, which is not a directory in the same layer")]
    NotADirectory {
        /// What lies below.
        path: TreePath,
        /// What should be a directory.
        parent: TreePath,
    },
    /// A hard link to nothing, to itself or to something that is not a regular file.
    #[error("{path} is a hard link to {target}, which is no regular file in the same layer")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// Its target.
        target: TreePath,
    },
    /// A symbolic link that Linux could not hold.
    #[error("{path} is a symbolic link whose target is empty, too long or holds a NUL byte")]
    SymlinkTarget {
        /// The link.
        path: TreePath,
    },
    /// A name that means a removal to readers of OCI layers.
    #[error("{path} begins with `.wh.`, which readers of layers take for a removal; rename it at its source")]
    Reserved {
        /// The file.
        path: TreePath,
    },
    /// A name that becomes too long as a removal.
    #[error("{path} cannot be removed by a layer: with `.wh.` before it, its name is too long")]
    TooLong {
        /// The file.
        path: TreePath,
    },
    /// The root as anything but a directory.
    #[error("the root of a layer must be a directory")]
    Root,
    /// An extended attribute that cannot be written.
    #[error("{path} has an extended attribute `{}` that a layer cannot hold", name.escape_ascii())]
    Xattr {
        /// The file.
        path: TreePath,
        /// The attribute.
        name: Vec<u8>,
    },
    /// Permission bits beyond `0o7777`.
    #[error("{path} has mode {mode:o}; at most 7777 is possible")]
    Mode {
        /// The file.
        path: TreePath,
        /// Its mode.
        mode: u32,
    },
    /// The layer would be longer than 2^63 bytes.
    #[error("the layer is too large: at {path} it passes 2^63 bytes")]
    TooLarge {
        /// Where it became so.
        path: TreePath,
    },
}

/// A tree laid out as a tar: order, offsets and size are fixed, no content has been read.
#[derive(Debug, Clone)]
pub struct TarPlan {
    members: Vec<Member>,
    size: u64,
}

#[derive(Debug, Clone)]
struct Member {
    path: TreePath,
    meta: Meta,
    item: Item,
    /// Length of the PAX comment that aligns the data.
    filler: u64,
    /// Where the data begins.
    data: u64,
}

#[derive(Debug, Clone)]
enum Item {
    Directory { opaque: bool },
    OpaqueMarker,
    File(Content),
    Symlink(Vec<u8>),
    HardLink(TreePath),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    Whiteout,
}

impl TarPlan {
    /// Lays `tree` out. Directories that the tree does not name are left to the layers below.
    ///
    /// # Errors
    /// [`PlanError`] if the tree contradicts itself or holds what a tar cannot.
    pub fn new(tree: &Tree) -> Result<Self, PlanError> {
        let mut plan = Self { members: ordered(tree)?, size: 0 };
        let mut head = Vec::new();
        let mut at = 0_u64;
        for member in &mut plan.members {
            let too_large = || PlanError::TooLarge { path: member.path.clone() };
            head.clear();
            member.records(&mut head)?;
            let len = member.data_len();
            if len >= BLOCK {
                member.filler = pax::filler_len(at, head.len() as u64);
            }
            let records = head.len() as u64 + member.filler;
            let extended = if records > 0 { RECORD + records.next_multiple_of(RECORD) } else { 0 };
            member.data = at + extended + RECORD;
            let end = member.data.checked_add(len).filter(|&end| end < 1 << 62).ok_or_else(too_large)?;
            at = end.next_multiple_of(RECORD);
        }
        plan.size = (at + 2 * RECORD).next_multiple_of(BLOCK).max(MIN_SIZE);
        Ok(plan)
    }

    /// Length of the whole layer, in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Streams the layer in pieces of 1 MiB, so that the receiver can hash them at once; needs
    /// little more memory than one piece.
    ///
    /// # Errors
    /// Those of [`TarPlan::fill`], and what the system said of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut sink = Buffered::new(out);
        self.fill(&mut sink, Compared::Each)?;
        sink.finish()
    }

    /// Streams the layer into memory that `sink` lends, where files are read to.
    ///
    /// # Errors
    /// What the system said of a source, or the sink; [`io::ErrorKind::InvalidData`] if a source has
    /// another length by now.
    pub fn fill(&self, sink: &mut dyn Sink, compared: Compared) -> io::Result<()> {
        let mut head = Vec::new();
        let mut at = 0;
        for member in &self.members {
            head.clear();
            member.head(&mut head).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            sink.push(&head)?;
            at = member.data;
            if let Item::File(content) = &member.item {
                write_content(content, sink, compared)?;
                let end = at + content.len();
                at = end.next_multiple_of(RECORD);
                sink.zeros(at - end)?;
            }
        }
        sink.zeros(self.size - at)
    }

    /// The index that [`read_index`](super::read_index) would find in the written layer.
    pub fn index(&self) -> LayerIndex {
        let entries = self.members.iter().filter_map(Member::index_entry).collect();
        LayerIndex { entries, size: self.size }
    }
}

/// The contents of files where they lie in the tar, read from their sources: what stands between them cannot be read
/// before the layer is written.
impl ReadAt for TarPlan {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let after = self.members.partition_point(|member| member.data <= offset);
        let member = after.checked_sub(1).and_then(|number| self.members.get(number));
        let Some(Member { item: Item::File(content), data, .. }) = member else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if offset - data + buf.len() as u64 > content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.open()?.read_exact_at(buf, offset - data)
    }
}

/// The members of `tree` in the order of the tar, hard links resolved.
fn ordered(tree: &Tree) -> Result<Vec<Member>, PlanError> {
    let first_names = first_names(tree)?;
    let mut members = Vec::with_capacity(tree.len());
    let mut large = Vec::new();
    let mut links_to_large = Vec::new();
    for (path, node) in tree.iter() {
        check_place(tree, path, node)?;
        let (meta, item) = match node {
            Node::Directory { meta, opaque } => (meta.clone(), Item::Directory { opaque: *opaque }),
            Node::Symlink { meta, target } => {
                if target.is_empty() || target.len() >= PATH_MAX || target.contains(&0) {
                    return Err(PlanError::SymlinkTarget { path: path.clone() });
                }
                (Meta { mode: 0o777, ..meta.clone() }, Item::Symlink(target.clone()))
            }
            Node::CharDevice { meta, device } => (meta.clone(), Item::CharDevice(*device)),
            Node::BlockDevice { meta, device } => (meta.clone(), Item::BlockDevice(*device)),
            Node::Fifo { meta } => (meta.clone(), Item::Fifo),
            Node::Whiteout => (Meta::default(), Item::Whiteout),
            Node::File { .. } | Node::HardLink { .. } => {
                let target = if let Node::HardLink { target } = node { target } else { path };
                let Some(Node::File { meta, content }) = tree.get(target) else {
                    return Err(PlanError::LinkTarget { path: path.clone(), target: target.clone() });
                };
                let first = first_names.get(target).filter(|first| *first != path);
                let item = first.map_or_else(|| Item::File(content.clone()), |first| Item::HardLink(first.clone()));
                (meta.clone(), item)
            }
        };
        if meta.mode > 0o7777 {
            return Err(PlanError::Mode { path: path.clone(), mode: meta.mode });
        }
        let group = match (&item, node) {
            (Item::File(content), _) if content.len() >= LARGE => &mut large,
            (Item::HardLink(_), node) if linked_len(tree, node) >= LARGE => &mut links_to_large,
            _ => &mut members,
        };
        let opaque = matches!(item, Item::Directory { opaque: true });
        group.push(Member::new(path, meta, item)?);
        if opaque {
            group.push(Member::new(path, Meta::default(), Item::OpaqueMarker)?);
        }
    }
    members.append(&mut large);
    members.append(&mut links_to_large);
    Ok(members)
}

/// For each file with hard links: the first of all its names, which becomes the file in the tar.
fn first_names(tree: &Tree) -> Result<BTreeMap<TreePath, TreePath>, PlanError> {
    let mut first_names = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Node::HardLink { target } = node {
            if !matches!(tree.get(target), Some(Node::File { .. })) {
                return Err(PlanError::LinkTarget { path: path.clone(), target: target.clone() });
            }
            first_names.entry(target.clone()).or_insert_with(|| path.min(target).clone());
        }
    }
    Ok(first_names)
}

fn linked_len(tree: &Tree, node: &Node) -> u64 {
    let file = if let Node::HardLink { target } = node { tree.get(target) } else { Some(node) };
    if let Some(Node::File { content, .. }) = file { content.len() } else { 0 }
}

fn check_place(tree: &Tree, path: &TreePath, node: &Node) -> Result<(), PlanError> {
    if path.is_root() && !matches!(node, Node::Directory { .. }) {
        return Err(PlanError::Root);
    }
    if path.name().starts_with(WHITEOUT_PREFIX) {
        return Err(PlanError::Reserved { path: path.clone() });
    }
    let mut above = path.parent();
    while let Some(parent) = above {
        match tree.get(&parent) {
            Some(Node::Directory { .. }) => break,
            Some(_) => return Err(PlanError::NotADirectory { path: path.clone(), parent }),
            None => above = parent.parent(),
        }
    }
    Ok(())
}

impl Member {
    fn new(path: &TreePath, meta: Meta, item: Item) -> Result<Self, PlanError> {
        let member = Self { path: path.clone(), meta, item, filler: 0, data: 0 };
        match TreePath::new(member.name()) {
            Ok(_) => Ok(member),
            Err(_) => Err(PlanError::TooLong { path: path.clone() }),
        }
    }

    fn data_len(&self) -> u64 {
        if let Item::File(content) = &self.item { content.len() } else { 0 }
    }

    /// The member's name in the tar.
    fn name(&self) -> Vec<u8> {
        let path = self.path.as_bytes();
        match &self.item {
            Item::Directory { .. } if path.is_empty() => b"./".to_vec(),
            Item::Directory { .. } => [path, b"/"].concat(),
            Item::OpaqueMarker if path.is_empty() => OPAQUE_MARKER.to_vec(),
            Item::OpaqueMarker => [path, b"/", OPAQUE_MARKER].concat(),
            Item::Whiteout => {
                let name = self.path.name();
                let above = path.len() - name.len();
                [path.get(..above).unwrap_or_default(), WHITEOUT_PREFIX, name].concat()
            }
            _ => path.to_vec(),
        }
    }

    fn link(&self) -> &[u8] {
        match &self.item {
            Item::Symlink(target) => target,
            Item::HardLink(target) => target.as_bytes(),
            _ => &[],
        }
    }

    /// Appends the PAX records, without the filler.
    fn records(&self, out: &mut Vec<u8>) -> Result<(), PlanError> {
        pax::push_names(out, &self.name(), self.link());
        pax::push_xattrs(out, &self.meta.xattrs).map_err(|name| PlanError::Xattr { path: self.path.clone(), name })
    }

    /// Appends everything that stands before the data.
    fn head(&self, out: &mut Vec<u8>) -> Result<(), PlanError> {
        let start = out.len();
        out.resize(start + RECORD as usize, 0);
        self.records(out)?;
        if self.filler > 0 {
            pax::push_filler(out, self.filler);
        }
        let records = out.len() - start - RECORD as usize;
        if records == 0 {
            out.truncate(start);
        } else {
            let extended = extended_header(records as u64).encode();
            out.iter_mut().skip(start).zip(extended).for_each(|(to, from)| *to = from);
            out.resize(out.len().next_multiple_of(RECORD as usize), 0);
        }
        let kind = match &self.item {
            Item::Directory { .. } => Type::Directory,
            Item::File(_) | Item::Whiteout | Item::OpaqueMarker => Type::File,
            Item::Symlink(_) => Type::Symlink,
            Item::HardLink(_) => Type::HardLink,
            Item::CharDevice(_) => Type::CharDevice,
            Item::BlockDevice(_) => Type::BlockDevice,
            Item::Fifo => Type::Fifo,
        };
        let device = match &self.item {
            Item::CharDevice(device) | Item::BlockDevice(device) => (device.major, device.minor),
            _ => (0, 0),
        };
        let Meta { mode, uid, gid, mtime, .. } = self.meta;
        let size = self.data_len();
        out.extend(
            Header { kind, name: &self.name(), link: self.link(), mode, uid, gid, size, mtime, device }.encode(),
        );
        Ok(())
    }

    fn index_entry(&self) -> Option<IndexEntry> {
        let kind = match &self.item {
            Item::OpaqueMarker => return None,
            Item::Directory { opaque } => IndexKind::Directory { opaque: *opaque },
            Item::File(content) => IndexKind::File { offset: self.data, len: content.len() },
            Item::Symlink(target) => IndexKind::Symlink(target.clone()),
            Item::HardLink(target) => IndexKind::HardLink(target.clone()),
            Item::CharDevice(device) => IndexKind::CharDevice(*device),
            Item::BlockDevice(device) => IndexKind::BlockDevice(*device),
            Item::Fifo => IndexKind::Fifo,
            Item::Whiteout => IndexKind::Whiteout,
        };
        let mut meta = self.meta.clone();
        pax::normalise_xattrs(&mut meta.xattrs);
        Some(IndexEntry { path: self.path.clone(), meta, kind })
    }
}

/// The header of an extended header; its name shows only in readers that know no PAX.
pub(super) fn extended_header(records: u64) -> Header<'static> {
    Header {
        kind: Type::Extended,
        name: b"././@PaxHeader",
        link: b"",
        mode: 0,
        uid: 0,
        gid: 0,
        size: records,
        mtime: 0,
        device: (0, 0),
    }
}
