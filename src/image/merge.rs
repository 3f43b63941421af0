//! The tree that the layers of an image make together (OCI image-spec 1.1, "Image Layer Filesystem Changeset").
//!
//! The upper layer wins; whiteouts and opaque directories hide what lower layers hold; a directory over a
//! directory brings its metadata and keeps the children; anything else replaces what was there. Layers may come
//! from outside and are hostile: no path is ever followed through a symbolic link.

use crate::layer::{
    tar::{IndexEntry, IndexKind, LayerIndex},
    tree::{Device, Meta, TreePath},
};
use std::collections::BTreeMap;

/// Longest target of a symbolic link, in bytes (Linux `PATH_MAX` less the final NUL).
const TARGET_MAX: usize = 4095;
/// Permissions of the root and of parents that no layer describes; they belong to root and date from 1970.
const IMPLIED_MODE: u32 = 0o755;

/// Number of an inode within a [`Merged`] tree; 0 is the root directory.
pub type InodeId = usize;

/// Children of a directory by name, in the order of the names' bytes.
pub type Children = BTreeMap<Vec<u8>, InodeId>;

/// The merged tree of an image. Inodes are numbered in the order in which a walk by name bytes first meets them.
#[derive(Debug, Clone)]
pub struct Merged {
    inodes: Vec<Inode>,
    layer_sizes: Vec<u64>,
}

/// One file, directory or other object of the merged tree, whatever number of names it has.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Owner, mode, time and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: InodeKind,
    /// Number of links as `stat` shows it: names of a file; 2 and the subdirectories for a directory.
    pub links: u32,
}

/// What an [`Inode`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory and what it holds, without `.` and `..`.
    Directory(Children),
    /// A regular file, whose bytes stay in the layer.
    File(Extent),
    /// A symbolic link and where it points: 1 to 4095 bytes without NUL.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// Where the bytes of a regular file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of the layer, counted from the lowest, which is 0.
    pub layer: usize,
    /// First byte within the layer's tar.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
    /// Whether it is the last entry of its layer, so that nothing but zeros follows it.
    pub ends_layer: bool,
}

/// Why layers do not make a tree. Layers are counted from 1 in the messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A path leads through a symbolic link.
    #[error(
        "layer {}: {path} leads through the symbolic link {link}; name the place it points to instead",
        .layer + 1
    )]
    ThroughSymlink {
        /// The layer that holds the path.
        layer: usize,
        /// The path.
        path: TreePath,
        /// The component of it that is a link.
        link: TreePath,
    },
    /// A path leads through something that is no directory.
    #[error("layer {}: {path} lies below {parent}, which is not a directory", .layer + 1)]
    NotADirectory {
        /// The layer that holds the path.
        layer: usize,
        /// The path.
        path: TreePath,
        /// The component of it that is no directory.
        parent: TreePath,
    },
    /// A hard link names something that is not there.
    #[error("layer {}: the hard link {path} names {target}, which neither this layer nor a lower one holds before it", .layer + 1)]
    NoTarget {
        /// The layer that holds the link.
        layer: usize,
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A hard link names a directory.
    #[error("layer {}: the hard link {path} names the directory {target}; only files have several names", .layer + 1)]
    LinkToDirectory {
        /// The layer that holds the link.
        layer: usize,
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// The root is no directory, or hidden.
    #[error("layer {}: the root of the tree must be a directory", .layer + 1)]
    Root {
        /// The layer.
        layer: usize,
    },
    /// A file's bytes lie outside its layer.
    #[error("layer {}: the data of {path} ends at byte {end}, beyond the layer's {size} bytes", .layer + 1)]
    BeyondEnd {
        /// The layer.
        layer: usize,
        /// The file.
        path: TreePath,
        /// First byte after its data.
        end: u64,
        /// Length of the layer.
        size: u64,
    },
    /// The target of a symbolic link cannot be stored.
    #[error("layer {}: the target of the symbolic link {path} must be 1 to 4095 bytes without NUL", .layer + 1)]
    Target {
        /// The layer.
        layer: usize,
        /// The link.
        path: TreePath,
    },
}

impl Merged {
    /// All inodes; the root directory is the first.
    pub fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// Length in bytes of each layer, the lowest first.
    pub fn layer_sizes(&self) -> &[u64] {
        &self.layer_sizes
    }

    /// Walks all names in the order of a tree walk by name bytes, each directory before what it holds.
    pub fn walk(&self) -> impl Iterator<Item = (Vec<u8>, &Inode)> {
        let mut waiting = vec![(Vec::new(), 0)];
        std::iter::from_fn(move || {
            let (path, id): (Vec<u8>, InodeId) = waiting.pop()?;
            let inode = self.inodes.get(id)?;
            if let InodeKind::Directory(children) = &inode.kind {
                waiting.extend(children.iter().rev().map(|(name, &child)| {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    ([path.as_slice(), separator, name].concat(), child)
                }));
            }
            Some((path, inode))
        })
    }
}

/// Merges `layers`, the lowest first, into one tree.
///
/// Parents that no layer describes become directories of root with mode 0755 and time 0. The metadata of a hard
/// link is that of its target.
///
/// # Errors
/// [`MergeError`], naming the layer and the path.
pub fn merge(layers: &[&LayerIndex]) -> Result<Merged, MergeError> {
    let mut tree = Growing { inodes: vec![implied_directory()] };
    for (number, layer) in layers.iter().enumerate() {
        tree.hide(number, layer)?;
        tree.place(number, layer)?;
    }
    Ok(Merged { inodes: renumber(tree.inodes), layer_sizes: layers.iter().map(|layer| layer.size).collect() })
}

fn implied_directory() -> Inode {
    Inode { meta: Meta::root_owned(IMPLIED_MODE, 0), kind: InodeKind::Directory(Children::new()), links: 0 }
}

/// The tree while layers are applied. Inodes that lost their last name stay until [`renumber`] drops them.
struct Growing {
    inodes: Vec<Inode>,
}

/// Where a path leads.
struct Found {
    /// The deepest directory on the way; the containing one if `inode` is there.
    parent: InodeId,
    /// What the path names, if it is there.
    inode: Option<InodeId>,
}

impl Growing {
    /// Removes what this layer's whiteouts and opaque directories hide. It comes before the layer's own entries,
    /// because a whiteout never hides anything of its own layer, whatever their order in the tar.
    fn hide(&mut self, layer: usize, index: &LayerIndex) -> Result<(), MergeError> {
        for entry in &index.entries {
            match entry.kind {
                IndexKind::Whiteout if entry.path.is_root() => return Err(MergeError::Root { layer }),
                IndexKind::Whiteout => {
                    let found = self.find(layer, &entry.path, &entry.path)?;
                    if let (Some(_), Some(children)) = (found.inode, self.children(found.parent)) {
                        children.remove(entry.path.name());
                    }
                }
                IndexKind::Directory { opaque: true } => {
                    let found = self.find(layer, &entry.path, &entry.path)?;
                    if let Some(children) = found.inode.and_then(|id| self.children(id)) {
                        children.clear();
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds this layer's entries in tar order.
    fn place(&mut self, layer: usize, index: &LayerIndex) -> Result<(), MergeError> {
        let last = index.entries.len().saturating_sub(1);
        for (position, entry) in index.entries.iter().enumerate() {
            match &entry.kind {
                IndexKind::Whiteout => {}
                IndexKind::Directory { .. } => self.place_directory(layer, entry)?,
                IndexKind::HardLink(target) => self.place_hard_link(layer, &entry.path, target)?,
                _ => {
                    let kind = leaf(layer, entry, index.size, position == last)?;
                    let id = self.add(Inode { meta: entry.meta.clone(), kind, links: 0 });
                    self.name(layer, &entry.path, id)?;
                }
            }
        }
        Ok(())
    }

    fn place_directory(&mut self, layer: usize, entry: &IndexEntry) -> Result<(), MergeError> {
        let Some(above) = entry.path.parent() else {
            self.set_meta(0, &entry.meta);
            return Ok(());
        };
        let parent = self.make_directories(layer, &entry.path, &above)?;
        let existing = self.children(parent).and_then(|children| children.get(entry.path.name()).copied());
        match existing {
            Some(id) if self.children(id).is_some() => self.set_meta(id, &entry.meta),
            _ => {
                let id = self.add(Inode { meta: entry.meta.clone(), ..implied_directory() });
                self.name(layer, &entry.path, id)?;
            }
        }
        Ok(())
    }

    fn place_hard_link(&mut self, layer: usize, path: &TreePath, target: &TreePath) -> Result<(), MergeError> {
        let absent = || MergeError::NoTarget { layer, path: path.clone(), target: target.clone() };
        // What stands at `path` goes before the link is made; a target in there goes with it.
        if target.is_within(path) {
            return Err(absent());
        }
        let id = self.find(layer, path, target)?.inode.ok_or_else(absent)?;
        if self.children(id).is_some() {
            return Err(MergeError::LinkToDirectory { layer, path: path.clone(), target: target.clone() });
        }
        self.name(layer, path, id)
    }

    /// Gives inode `id` the name `path`, in place of what had it.
    fn name(&mut self, layer: usize, path: &TreePath, id: InodeId) -> Result<(), MergeError> {
        let above = path.parent().ok_or(MergeError::Root { layer })?;
        let parent = self.make_directories(layer, path, &above)?;
        if let Some(children) = self.children(parent) {
            children.insert(path.name().to_vec(), id);
        }
        Ok(())
    }

    /// The directory at `place`, made with its parents where missing. `path` is what the error names.
    fn make_directories(&mut self, layer: usize, path: &TreePath, place: &TreePath) -> Result<InodeId, MergeError> {
        let mut at = 0;
        for (end, name) in components(place) {
            let next = self.children(at).and_then(|children| children.get(name).copied());
            at = match next {
                Some(id) => {
                    self.expect_directory(layer, path, place, end, id)?;
                    id
                }
                None => {
                    let id = self.add(implied_directory());
                    if let Some(children) = self.children(at) {
                        children.insert(name.to_vec(), id);
                    }
                    id
                }
            };
        }
        Ok(at)
    }

    /// The inode at `place`. Its last component is not looked through, the ones before must be directories.
    fn find(&mut self, layer: usize, path: &TreePath, place: &TreePath) -> Result<Found, MergeError> {
        let mut found = Found { parent: 0, inode: Some(0) };
        let mut checked = 0;
        for (end, name) in components(place) {
            let Some(parent) = found.inode else { break };
            self.expect_directory(layer, path, place, checked, parent)?;
            found = Found { parent, inode: self.children(parent).and_then(|children| children.get(name).copied()) };
            checked = end;
        }
        Ok(found)
    }

    /// Refuses unless inode `id`, which the first `end` bytes of `place` name, is a directory.
    fn expect_directory(
        &self,
        layer: usize,
        path: &TreePath,
        place: &TreePath,
        end: usize,
        id: InodeId,
    ) -> Result<(), MergeError> {
        let named = || TreePath::new(place.as_bytes().get(..end).unwrap_or_default()).unwrap_or_default();
        match self.inodes.get(id).map(|inode| &inode.kind) {
            Some(InodeKind::Directory(_)) => Ok(()),
            Some(InodeKind::Symlink(_)) => Err(MergeError::ThroughSymlink { layer, path: path.clone(), link: named() }),
            _ => Err(MergeError::NotADirectory { layer, path: path.clone(), parent: named() }),
        }
    }

    fn add(&mut self, inode: Inode) -> InodeId {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn set_meta(&mut self, id: InodeId, meta: &Meta) {
        if let Some(inode) = self.inodes.get_mut(id) {
            inode.meta = meta.clone();
        }
    }

    fn children(&mut self, id: InodeId) -> Option<&mut Children> {
        match &mut self.inodes.get_mut(id)?.kind {
            InodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }
}

/// The components of `path`, each with the length of the path up to its end.
fn components(path: &TreePath) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = path.as_bytes();
    let mut end = 0;
    bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(move |name| {
        end += name.len() + usize::from(end > 0);
        (end, name)
    })
}

/// The inode kind of an entry that is neither directory, hard link nor whiteout, checked.
fn leaf(layer: usize, entry: &IndexEntry, size: u64, last: bool) -> Result<InodeKind, MergeError> {
    Ok(match &entry.kind {
        IndexKind::File { offset, len } => {
            let end = offset.saturating_add(*len);
            if end > size {
                return Err(MergeError::BeyondEnd { layer, path: entry.path.clone(), end, size });
            }
            InodeKind::File(Extent { layer, offset: *offset, len: *len, ends_layer: last })
        }
        IndexKind::Symlink(target) => {
            if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                return Err(MergeError::Target { layer, path: entry.path.clone() });
            }
            InodeKind::Symlink(target.clone())
        }
        IndexKind::CharDevice(device) => InodeKind::CharDevice(*device),
        IndexKind::BlockDevice(device) => InodeKind::BlockDevice(*device),
        IndexKind::Fifo => InodeKind::Fifo,
        IndexKind::Directory { .. } | IndexKind::HardLink(_) | IndexKind::Whiteout => {
            return Err(MergeError::Root { layer });
        }
    })
}

/// Drops inodes without a name, numbers the others in walking order and counts links.
fn renumber(mut inodes: Vec<Inode>) -> Vec<Inode> {
    let mut number: Vec<Option<InodeId>> = vec![None; inodes.len()];
    let mut order: Vec<InodeId> = Vec::new();
    let mut links: Vec<u32> = Vec::new();
    let mut waiting = vec![0];
    while let Some(old) = waiting.pop() {
        let Some(slot) = number.get_mut(old) else { continue };
        if let Some(new) = *slot {
            if let Some(count) = links.get_mut(new) {
                *count = count.saturating_add(1);
            }
            continue;
        }
        *slot = Some(order.len());
        order.push(old);
        links.push(1);
        if let Some(InodeKind::Directory(children)) = inodes.get(old).map(|inode| &inode.kind) {
            waiting.extend(children.values().rev());
        }
    }
    let is_directory: Vec<bool> = inodes.iter().map(|inode| matches!(inode.kind, InodeKind::Directory(_))).collect();
    let mut kept = Vec::with_capacity(order.len());
    for (old, names) in order.into_iter().zip(links) {
        let Some(place) = inodes.get_mut(old) else { continue };
        let mut inode = std::mem::replace(place, implied_directory());
        inode.links = names;
        if let InodeKind::Directory(children) = &mut inode.kind {
            let below = children.values().filter(|&&child| is_directory.get(child) == Some(&true)).count();
            inode.links = u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2);
            for child in children.values_mut() {
                *child = number.get(*child).copied().flatten().unwrap_or_default();
            }
        }
        kept.push(inode);
    }
    kept
}

#[cfg(test)]
mod tests;
