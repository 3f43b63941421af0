//! A root file system that is read where its bytes lie: served to the kernel through FUSE, nothing of it copied.
//!
//! The helper mounts it in its own name spaces and hands the device over; the caller, which has the files open, answers.
//! What is served never changes, so the kernel may keep all that it was told.

use crate::layer::tree::{Content, Meta, Node, Tree, TreePath, Xattrs};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, ReplyXattr, Request, Session, SessionACL,
};
use gap_format::ReadAt;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the kernel may believe what it was told.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// Threads that answer; a read waits for the disk.
const THREADS: usize = 2;
/// Bytes that the kernel reads ahead.
const AHEAD: u32 = 1 << 20;
/// Directories that are mounted on.
const MOUNTED_ON: [&str; 4] = ["dev", "proc", "run", "tmp"];
/// Block size that `stat` tells.
const BLOCK: u32 = 4096;

/// A tree, ready to be served.
pub(super) struct View(Vec<Inode>);

struct Inode {
    meta: Meta,
    names: u32,
    kind: Kind,
}

enum Kind {
    /// The inodes in it by name.
    Directory(BTreeMap<Vec<u8>, usize>),
    File(Content),
    Symlink(Vec<u8>),
    Fifo,
}

impl View {
    /// Of a tree, with the directories that are mounted on. Device nodes are left out.
    pub fn new(tree: &Tree) -> Self {
        let mut view = Self(vec![Inode::directory(directory_meta())]);
        let mut links = Vec::new();
        for (path, node) in tree.iter() {
            match node {
                Node::HardLink { target } => links.push((path, target)),
                Node::Directory { meta, .. } => {
                    let number = view.directory(path);
                    if let Some(inode) = view.0.get_mut(number) {
                        inode.meta = meta.clone();
                    }
                }
                Node::File { meta, content } => view.add(path, meta, Kind::File(content.clone())),
                Node::Symlink { meta, target } => view.add(path, meta, Kind::Symlink(target.clone())),
                Node::Fifo { meta } => view.add(path, meta, Kind::Fifo),
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Whiteout => {}
            }
        }
        for (path, target) in links {
            let Some(number) = view.find(target) else { continue };
            view.name(path, number);
            if let Some(inode) = view.0.get_mut(number) {
                inode.names += 1;
            }
        }
        for name in MOUNTED_ON {
            if let Ok(path) = TreePath::new(name)
                && view.find(&path).is_none()
            {
                view.directory(&path);
            }
        }
        view
    }

    /// Answers the kernel until the file system is gone.
    ///
    /// # Errors
    /// What the system said of the device.
    pub fn serve(self, device: OwnedFd) -> io::Result<()> {
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        Session::from_fd(self, device, SessionACL::All, config)?.run()
    }

    fn add(&mut self, path: &TreePath, meta: &Meta, kind: Kind) {
        self.0.push(Inode { meta: meta.clone(), names: 1, kind });
        self.name(path, self.0.len() - 1);
    }

    /// Gives an inode a name; directories that the tree leaves out are made.
    fn name(&mut self, path: &TreePath, number: usize) {
        let parent = self.directory(&path.parent().unwrap_or_default());
        if let Some(Inode { kind: Kind::Directory(entries), .. }) = self.0.get_mut(parent) {
            entries.insert(path.name().to_vec(), number);
        }
    }

    /// The number of the directory at `path`.
    fn directory(&mut self, path: &TreePath) -> usize {
        if let Some(number) = self.find(path) {
            return number;
        }
        self.0.push(Inode::directory(directory_meta()));
        let number = self.0.len() - 1;
        self.name(path, number);
        number
    }

    fn find(&self, path: &TreePath) -> Option<usize> {
        let names = path.as_bytes().split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(0, |number, name| match &self.0.get(number)?.kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        })
    }

    fn inode(&self, number: INodeNo) -> Result<&Inode, Errno> {
        let at = usize::try_from(number.0).ok().and_then(|number| number.checked_sub(1));
        at.and_then(|at| self.0.get(at)).ok_or(Errno::ENOENT)
    }

    /// What lies in a directory, by name.
    fn entries(&self, number: INodeNo) -> Result<&BTreeMap<Vec<u8>, usize>, Errno> {
        match &self.inode(number)?.kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn xattrs(&self, number: INodeNo) -> Result<&Xattrs, Errno> {
        self.inode(number).map(|inode| &inode.meta.xattrs)
    }

    fn bytes(&self, number: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let Kind::File(content) = &self.inode(number)?.kind else { return Err(Errno::EISDIR) };
        let count = content.len().saturating_sub(offset).min(u64::from(size));
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut data = vec![0; usize::try_from(count).unwrap_or_default()];
        content.open().and_then(|open| open.read_exact_at(&mut data, offset)).map_err(|_| Errno::EIO)?;
        Ok(data)
    }
}

/// The number by which the kernel knows an inode: the root is 1.
const fn number(at: usize) -> INodeNo {
    INodeNo(at as u64 + 1)
}

fn directory_meta() -> Meta {
    Meta::root_owned(0o755, 0)
}

impl Inode {
    const fn directory(meta: Meta) -> Self {
        Self { meta, names: 2, kind: Kind::Directory(BTreeMap::new()) }
    }

    const fn file_type(&self) -> FileType {
        match self.kind {
            Kind::Directory(_) => FileType::Directory,
            Kind::File(_) => FileType::RegularFile,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Fifo => FileType::NamedPipe,
        }
    }

    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let size = match &self.kind {
            Kind::File(content) => content.len(),
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory(_) | Kind::Fifo => 0,
        };
        let time = time(self.meta.mtime);
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: self.file_type(),
            perm: u16::try_from(self.meta.mode & 0o7777).unwrap_or_default(),
            nlink: self.names,
            uid: self.meta.uid,
            gid: self.meta.gid,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Attributes that stand for "there is nothing of this name, and never will be".
fn nothing() -> FileAttr {
    Inode::directory(directory_meta()).attributes(INodeNo(0))
}

impl Filesystem for View {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kernel may allow less.
        let _ = config.set_max_readahead(AHEAD).or_else(|most| config.set_max_readahead(most));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.entries(parent).map(|entries| entries.get(name.as_bytes()).copied());
        let attributes = found.and_then(|found| match found {
            Some(at) => self.inode(number(at)).map(|inode| inode.attributes(number(at))),
            None => Ok(nothing()),
        });
        match attributes {
            Ok(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(ino) {
            Ok(inode) => reply.attr(&FOR_EVER, &inode.attributes(ino)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.inode(ino).map(|inode| &inode.kind) {
            Ok(Kind::Symlink(target)) => reply.data(target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // From then on the kernel opens files without asking, and keeps what it read of them.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.bytes(ino, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.entries(ino) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error),
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        // What `..` has for a number is not looked at: the kernel knows where it is.
        let own = [&b"."[..], b".."].map(|name| (name, ino, FileType::Directory));
        let below =
            entries.iter().filter_map(|(name, &at)| Some((name.as_slice(), number(at), self.0.get(at)?.file_type())));
        for (at, (name, ino, kind)) in own.into_iter().chain(below).enumerate().skip(skipped) {
            if reply.add(ino, at as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.xattrs(ino).map(|xattrs| xattrs.get(name.as_bytes())) {
            Ok(Some(value)) => attribute(value, size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.xattrs(ino) {
            Ok(xattrs) => {
                attribute(&xattrs.keys().flat_map(|name| [name, &b"\0"[..]].concat()).collect::<Vec<u8>>(), size, reply)
            }
            Err(error) => reply.error(error),
        }
    }
}

/// Answers with a value, or with its length where that was asked for.
fn attribute(value: &[u8], size: u32, reply: ReplyXattr) {
    match (u32::try_from(value.len()), size) {
        (Ok(len), 0) => reply.size(len),
        (Ok(len), _) if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn view() -> View {
        let file = Node::File { meta: Meta::root_owned(0o4755, -1), content: Content::bytes(*b"hello") };
        View::new(&Tree::from_iter([
            (path("usr/bin/a"), file),
            (path("usr/bin/b"), Node::HardLink { target: path("usr/bin/a") }),
            (path("tmp"), Node::Symlink { meta: Meta::root_owned(0o777, 0), target: b"var".to_vec() }),
        ]))
    }

    #[test]
    fn names_lead_to_inodes_and_missing_directories_are_there() {
        let view = view();
        let at = view.find(&path("usr/bin/a")).unwrap();
        assert_eq!(view.find(&path("usr/bin/b")), Some(at));
        assert_eq!(view.find(&path("usr/bin/c")), None);
        assert!(view.find(&path("proc")).is_some() && view.find(&path("usr/bin/a/b")).is_none());
        let attributes = view.0[at].attributes(number(at));
        assert_eq!((attributes.size, attributes.perm, attributes.nlink), (5, 0o4755, 2));
        assert_eq!(attributes.mtime, UNIX_EPOCH - Duration::from_secs(1));
        assert!(matches!(view.0[view.find(&path("tmp")).unwrap()].kind, Kind::Symlink(_)), "what is there stays");
    }

    #[test]
    fn reads_end_where_the_file_ends() {
        let view = view();
        let ino = number(view.find(&path("usr/bin/a")).unwrap());
        let read = |offset, size| view.bytes(ino, offset, size).ok().unwrap();
        assert_eq!((read(1, 3), read(3, 10), read(9, 1)), (b"ell".to_vec(), b"lo".to_vec(), Vec::new()));
        assert!(view.bytes(INodeNo(1), 0, 1).is_err() && view.bytes(INodeNo(0), 0, 1).is_err());
    }
}
