//! Unpacking a layer into a directory, on all cores.

use crate::{
    layer::{
        tar::{IndexEntry, IndexKind, LayerIndex},
        tree::{Meta, TreePath},
    },
    parallel::try_map,
};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    num::NonZeroUsize,
    os::unix::{ffi::OsStrExt, fs::FileExt, fs::OpenOptionsExt},
    path::Path,
};

/// Most threads that write files.
const MAX_THREADS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Bytes copied at once.
const CHUNK: usize = 1 << 18;

/// Unpacks the layer `source` with the index `index` below `root`, an empty directory. Whiteouts and
/// device nodes are passed over.
pub(super) fn populate(root: &Path, index: &LayerIndex, source: &File) -> Result<(), String> {
    let at = |path: &TreePath| path.under(root);
    let failed = |entry: &IndexEntry, error: io::Error| format!("cannot make {} in the sandbox: {error}", entry.path);
    for entry in &index.entries {
        if matches!(entry.kind, IndexKind::Directory { .. }) && !entry.path.is_root() {
            fs::create_dir_all(at(&entry.path)).map_err(|error| failed(entry, error))?;
        }
    }
    let files: Vec<&IndexEntry> =
        index.entries.iter().filter(|entry| matches!(entry.kind, IndexKind::File { .. })).collect();
    let threads = std::thread::available_parallelism().map_or(MAX_THREADS, |count| count.min(MAX_THREADS));
    let write = |entry: &&IndexEntry| write_file(&at(&entry.path), entry, source).map_err(|error| failed(entry, error));
    try_map(&files, threads, |_| 0, write)?;
    for entry in &index.entries {
        write_other(&at(&entry.path), entry, root).map_err(|error| failed(entry, error))?;
    }
    // Times of directories last, and those below first.
    for entry in index.entries.iter().rev() {
        if matches!(entry.kind, IndexKind::Directory { .. }) {
            set_meta(&at(&entry.path), &entry.meta, false).map_err(|error| failed(entry, error))?;
        }
    }
    Ok(())
}

fn write_file(place: &Path, entry: &IndexEntry, source: &File) -> io::Result<()> {
    let IndexKind::File { offset, len } = entry.kind else { return Ok(()) };
    let mut buffer = vec![0; usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK))];
    make_parent(place)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    let mut at = offset;
    while at < offset + len {
        let count = usize::try_from(offset + len - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let (now, _) = buffer.split_at_mut(count);
        FileExt::read_exact_at(source, now, at)?;
        file.write_all(now)?;
        at += count as u64;
    }
    let Meta { mode, uid, gid, .. } = entry.meta;
    // Owner before mode and capabilities, because changing it clears both.
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    for (name, value) in &entry.meta.xattrs {
        rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(&file, &times(entry.meta.mtime))?;
    Ok(())
}

fn write_other(place: &Path, entry: &IndexEntry, root: &Path) -> io::Result<()> {
    match &entry.kind {
        IndexKind::Symlink(target) => {
            make_parent(place)?;
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), place)?;
            set_meta(place, &entry.meta, true)
        }
        IndexKind::HardLink(target) => {
            make_parent(place)?;
            fs::hard_link(target.under(root), place)
        }
        IndexKind::Fifo => {
            make_parent(place)?;
            rustix::fs::mkfifoat(CWD, place, Mode::from_raw_mode(0o600))?;
            set_meta(place, &entry.meta, false)
        }
        _ => Ok(()),
    }
}

/// Layers may leave directories out.
fn make_parent(place: &Path) -> io::Result<()> {
    match place.parent() {
        Some(parent) if !parent.is_dir() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
}

fn set_meta(place: &Path, meta: &Meta, is_symlink: bool) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    rustix::fs::chownat(CWD, place, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_symlink {
        rustix::fs::chmodat(CWD, place, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    }
    for (name, value) in &meta.xattrs {
        rustix::fs::lsetxattr(place, name.as_slice(), value, XattrFlags::empty())?;
    }
    rustix::fs::utimensat(CWD, place, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

const fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
