//! A tar stream from outside as a file tree: confined, bounded, whole.

use super::spool::Spool;
use crate::{
    layer::tree::{Device, Meta, Node, PathError, Tree, TreePath, Xattrs},
    source::entries::each_entry,
};
use std::io::{self, Read};
use tar::{Entry, EntryType};

/// Entries accepted in one tar; the largest Debian packages have about 50,000.
const ENTRIES_MAX: usize = 1_000_000;

/// Why a tar cannot become a tree.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading or spooling failed; also: decompresses to too much, truncated, malformed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A name leaves the tree.
    #[error("`{name}`: {reason}")]
    Name {
        /// The name as it is written, escaped.
        name: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// An absolute name.
    #[error("`{0}` is an absolute name")]
    Absolute(String),
    /// A symbolic link that climbs above the root.
    #[error("the symbolic link {path} leads out of the tree, to `{target}`")]
    LeadsOut {
        /// The link.
        path: TreePath,
        /// Where it points, escaped.
        target: String,
    },
    /// A hard link whose target is not a regular file that came before it.
    #[error("the hard link {path} points to `{target}`, which is no regular file that came before it")]
    HardLink {
        /// The link.
        path: TreePath,
        /// Its target, escaped.
        target: String,
    },
    /// An entry whose parent is not a directory: it would be written through a link.
    #[error("{path} lies below {parent}, which is not a directory")]
    NotADirectory {
        /// The entry.
        path: TreePath,
        /// Its would-be parent.
        parent: TreePath,
    },
    /// The same name twice.
    #[error("{0} occurs twice")]
    Duplicate(TreePath),
    /// A kind of entry that packages do not have.
    #[error("{path} is of a kind that packages do not have (type {kind:?})")]
    Kind {
        /// The entry.
        path: TreePath,
        /// The type byte of its header.
        kind: char,
    },
    /// More entries than any real package has.
    #[error("there are more than {ENTRIES_MAX} entries")]
    TooMany,
    /// Something follows the end of the archive.
    #[error("there is data after the end of the archive")]
    Trailing,
}

/// Reads a tar to its end: entries into a tree, contents into the spool. The root itself gets no
/// node; directories that are implied only become 0755, owned by root.
///
/// # Errors
/// [`TarError`]; `source` should bound what it yields.
pub fn read_tree(source: impl Read, spool: &Spool) -> Result<Tree, TarError> {
    let mut builder = Builder { tree: Tree::new(), spool, buffer: Vec::new() };
    let rest = each_entry(source, TarError::Io, |number, entry| match number < ENTRIES_MAX {
        true => builder.add(entry),
        false => Err(TarError::TooMany),
    })?;
    // Reads to the very end: only there does the decompressor compare its checksum.
    drain_zeros(rest)?;
    Ok(builder.tree)
}

fn drain_zeros(mut rest: impl Read) -> Result<(), TarError> {
    let mut buffer = [0; 16 << 10];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) if buffer.iter().take(read).any(|&byte| byte != 0) => return Err(TarError::Trailing),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Builder<'a> {
    tree: Tree,
    spool: &'a Spool,
    buffer: Vec<u8>,
}

impl Builder<'_> {
    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), TarError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let path = confined(&raw)?;
        let meta = read_meta(entry)?;
        let node = match kind {
            EntryType::Regular if raw.ends_with(b"/") && entry.size() == 0 => Node::Directory { meta, opaque: false },
            EntryType::Regular | EntryType::Continuous => {
                let len = entry.size();
                Node::File { meta, content: self.spool.store(&mut *entry, len, &mut self.buffer)? }
            }
            EntryType::Directory => Node::Directory { meta, opaque: false },
            EntryType::Symlink => {
                let target = link_name(entry);
                if !stays_inside(&path, &target) {
                    return Err(TarError::LeadsOut { path, target: escaped(&target) });
                }
                Node::Symlink { meta, target }
            }
            EntryType::Link => self.hard_link(&path, &link_name(entry))?,
            EntryType::Char => Node::CharDevice { meta, device: device(entry)? },
            EntryType::Block => Node::BlockDevice { meta, device: device(entry)? },
            EntryType::Fifo => Node::Fifo { meta },
            other => return Err(TarError::Kind { path, kind: char::from(other.as_byte()) }),
        };
        if path.is_root() {
            return match node {
                Node::Directory { .. } => Ok(()),
                _ => Err(TarError::Kind { path, kind: char::from(kind.as_byte()) }),
            };
        }
        self.insert(path, node)
    }

    fn insert(&mut self, path: TreePath, node: Node) -> Result<(), TarError> {
        self.require_parents(&path)?;
        let both_directories =
            matches!((self.tree.get(&path), &node), (None, _) | (Some(Node::Directory { .. }), Node::Directory { .. }));
        if !both_directories {
            return Err(TarError::Duplicate(path));
        }
        self.tree.insert(path, node);
        Ok(())
    }

    /// Every ancestor must be a directory; one that is not there yet becomes one, so that no later
    /// entry can turn it into a link.
    fn require_parents(&mut self, path: &TreePath) -> Result<(), TarError> {
        let mut missing = Vec::new();
        let mut ancestor = path.parent();
        while let Some(parent) = ancestor.filter(|parent| !parent.is_root()) {
            match self.tree.get(&parent) {
                // Its own ancestors were looked at when it was inserted.
                Some(Node::Directory { .. }) => break,
                Some(_) => return Err(TarError::NotADirectory { path: path.clone(), parent }),
                None => {}
            }
            ancestor = parent.parent();
            missing.push(parent);
        }
        for parent in missing {
            self.tree.insert(parent, Node::Directory { meta: Meta::root_owned(0o755, 0), opaque: false });
        }
        Ok(())
    }

    fn hard_link(&self, path: &TreePath, raw_target: &[u8]) -> Result<Node, TarError> {
        let mut target = confined(raw_target)?;
        if let Some(Node::HardLink { target: first }) = self.tree.get(&target) {
            target = first.clone();
        }
        match self.tree.get(&target) {
            Some(Node::File { .. }) if target != *path => Ok(Node::HardLink { target }),
            _ => Err(TarError::HardLink { path: path.clone(), target: escaped(raw_target) }),
        }
    }
}

fn escaped(name: &[u8]) -> String {
    name.escape_ascii().to_string().chars().take(300).collect()
}

fn confined(raw: &[u8]) -> Result<TreePath, TarError> {
    if raw.starts_with(b"/") {
        return Err(TarError::Absolute(escaped(raw)));
    }
    TreePath::new(raw).map_err(|reason| TarError::Name { name: escaped(raw), reason })
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> Vec<u8> {
    entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Whether a symbolic link at `path` never climbs above the root on its way to `target`. Absolute
/// targets start at the root of the tree itself.
pub(in crate::source) fn stays_inside(path: &TreePath, target: &[u8]) -> bool {
    if target.is_empty() || target.contains(&0) || target.len() >= crate::layer::tree::PATH_MAX {
        return false;
    }
    let mut depth = match target.starts_with(b"/") {
        true => 0,
        false => path.as_bytes().iter().filter(|&&byte| byte == b'/').count(),
    };
    for component in target.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

fn device<R: Read>(entry: &Entry<'_, R>) -> io::Result<Device> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a device without a device number");
    Ok(Device {
        major: entry.header().device_major()?.ok_or_else(malformed)?,
        minor: entry.header().device_minor()?.ok_or_else(malformed)?,
    })
}

fn read_meta<R: Read>(entry: &mut Entry<'_, R>) -> Result<Meta, TarError> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let header = entry.header();
    let id = |id: u64| u32::try_from(id).map_err(|_| invalid("an owner beyond 32 bits"));
    let mut meta = Meta {
        mode: header.mode()? & 0o7777,
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mtime: i64::try_from(header.mtime()?).map_err(|_| invalid("a time beyond 63 bits"))?,
        xattrs: Xattrs::new(),
    };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(meta) };
    for extension in extensions {
        let extension = extension?;
        let (key, value) = (extension.key_bytes(), extension.value_bytes());
        if key.starts_with(b"GNU.sparse") {
            return Err(invalid("a sparse file, which packages do not have").into());
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            meta.xattrs.insert(name.to_vec(), value.to_vec());
        } else if key == b"mtime" {
            // Whole seconds: what follows the point is dropped.
            let seconds = value.split(|&byte| byte == b'.').next().unwrap_or_default();
            let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse().ok());
            meta.mtime = seconds.ok_or_else(|| invalid("a malformed time"))?;
        }
    }
    Ok(meta)
}
