//! Finding what programs changed in a directory.
//!
//! A file whose inode number is the same and whose change time (`ctime`, which no program can set)
//! lies before the start is untouched and need not be read.

use crate::layer::tree::{Content, Meta, Node, PathError, Tree, TreePath, Xattrs};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Coarsest granularity of file times, with a margin.
const GRANULARITY: Duration = Duration::from_millis(15);
/// Difference between the clocks from which on the wall clock has been set, in seconds.
const CLOCK_STEP: i64 = 1;

/// What is remembered of a file: device, inode, and for directories owner, mode and time.
type Known = ((u64, u64), Option<(u32, u32, u32, i64, i64)>);

fn known(metadata: &Metadata) -> Known {
    // Making and removing mount points changes a directory's ctime, but nothing that counts.
    let directory = metadata
        .is_dir()
        .then(|| (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec()));
    ((metadata.dev(), metadata.ino()), directory)
}

/// A directory tree as it was at one moment.
pub(super) struct Snapshot {
    known: BTreeMap<TreePath, Known>,
    start: Timespec,
    start_monotonic: Timespec,
}

impl Snapshot {
    /// Remembers what lies below `root`.
    pub(super) fn take(root: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        walk(root, &TreePath::root(), &mut |path, _, metadata| {
            files.insert(path, known(metadata));
            Ok(())
        })?;
        Ok(Self::now(files))
    }

    /// Remembers nothing: all that is there later counts as changed.
    pub(super) fn of_nothing() -> Self {
        Self::now(BTreeMap::new())
    }

    fn now(known: BTreeMap<TreePath, Known>) -> Self {
        // What happens from now on has a later time than what happened until now.
        std::thread::sleep(GRANULARITY);
        let start = clock_gettime(ClockId::Realtime);
        std::thread::sleep(GRANULARITY);
        Self { known, start, start_monotonic: clock_gettime(ClockId::Monotonic) }
    }

    /// What has changed since in `within` and below, seen from `root`, as a layer. Files made or written in between get the time
    /// `source_date`; those that were only moved or got an older time keep it.
    pub(super) fn changes(&self, root: &Path, within: &TreePath, source_date: i64) -> Result<Tree, String> {
        let now = clock_gettime(ClockId::Realtime);
        let now_monotonic = clock_gettime(ClockId::Monotonic);
        let wall = now.tv_sec - self.start.tv_sec;
        let steady = now_monotonic.tv_sec - self.start_monotonic.tv_sec;
        if (wall - steady).abs() > CLOCK_STEP {
            return Err("the host's clock was set meanwhile; run it again".to_owned());
        }
        let mut changes = Tree::new();
        let mut missing = self.known.clone();
        let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
        walk(root, within, &mut |path, place, metadata| {
            let before = missing.remove(&path);
            let changed_at = (metadata.ctime(), metadata.ctime_nsec());
            let inode = (metadata.dev(), metadata.ino());
            let early = changed_at < (self.start.tv_sec, self.start.tv_nsec);
            if before == Some(known(metadata)) && (early || metadata.is_dir()) {
                return Ok(());
            }
            if metadata.nlink() > 1 && metadata.is_file() {
                if let Some(target) = first_names.get(&inode) {
                    changes.insert(path, Node::HardLink { target: target.clone() });
                    return Ok(());
                }
                first_names.insert(inode, path.clone());
            }
            let written = (self.start.tv_sec..=now.tv_sec).contains(&metadata.mtime());
            let mtime = if written { source_date } else { metadata.mtime() };
            if let Some(node) = node(place, metadata, mtime)? {
                changes.insert(path, node);
            }
            Ok(())
        })?;
        for path in missing.keys() {
            if path.parent().is_none_or(|parent| !missing.contains_key(&parent)) {
                changes.insert(path.clone(), Node::Whiteout);
            }
        }
        Ok(changes)
    }
}

/// The node of a file; `None` for sockets, which mean nothing without their program.
fn node(place: &Path, metadata: &Metadata, mtime: i64) -> io::Result<Option<Node>> {
    let meta = Meta {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime,
        xattrs: xattrs(place)?,
    };
    let kind = metadata.file_type();
    use std::os::unix::fs::FileTypeExt as _;
    Ok(Some(if kind.is_dir() {
        Node::Directory { meta, opaque: false }
    } else if kind.is_file() {
        Node::File { meta, content: Content::Path { path: Arc::from(place), len: metadata.len() } }
    } else if kind.is_symlink() {
        Node::Symlink { meta, target: fs::read_link(place)?.into_os_string().into_encoded_bytes() }
    } else if kind.is_fifo() {
        Node::Fifo { meta }
    } else {
        return Ok(None);
    }))
}

/// File capabilities and `user.` attributes; what else is there belongs to the host.
fn xattrs(place: &Path) -> io::Result<Xattrs> {
    let mut names = vec![0; 1 << 16];
    let len = match rustix::fs::llistxattr(place, names.as_mut_slice()) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => return Ok(Xattrs::new()),
        Err(error) => return Err(error.into()),
    };
    let names = names.get(..len).unwrap_or_default().split(|&byte| byte == 0);
    let wanted = names.filter(|name| *name == b"security.capability" || name.starts_with(b"user."));
    let mut value = vec![0; 1 << 16];
    wanted
        .map(|name| {
            let len = rustix::fs::lgetxattr(place, name, value.as_mut_slice())?;
            Ok((name.to_vec(), value.get(..len).unwrap_or_default().to_vec()))
        })
        .collect()
}

type Visit<'a> = dyn FnMut(TreePath, &Path, &Metadata) -> io::Result<()> + 'a;

/// Calls `visit` for `within`, as it lies in `root`, and all below it, directories before what is in them, sorted by name.
fn walk(root: &Path, within: &TreePath, visit: &mut Visit<'_>) -> Result<(), String> {
    let mut ahead = vec![within.clone()];
    while let Some(path) = ahead.pop() {
        let place = path.under(root);
        let failed = |error: io::Error| format!("cannot read {path} in the sandbox: {error}");
        let metadata = fs::symlink_metadata(&place).map_err(failed)?;
        if metadata.is_dir() {
            let mut below = Vec::new();
            for entry in fs::read_dir(&place).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                let below_path = path.join(name.as_bytes());
                below.push(
                    below_path.map_err(|error: PathError| format!("cannot read {path} in the sandbox: {error}"))?,
                );
            }
            below.sort_unstable_by(|a, b| b.cmp(a));
            ahead.append(&mut below);
        }
        visit(path.clone(), &place, &metadata).map_err(failed)?;
    }
    Ok(())
}
