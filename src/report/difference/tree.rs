//! Comparing the files of two images.

use super::{Change, FileDifference, Package, State};
use crate::{
    image::merge::{Extent, Inode, InodeKind, Merged},
    layer::tree::Meta,
    report::{
        contents::{Contents, ContentsError, Image},
        files::{Kind, shown},
        packages,
    },
};
use gap_format::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes compared at once.
const CHUNK: u64 = 1 << 20;

/// One of the two images.
pub(super) struct Side<'a> {
    contents: &'a Contents,
    image: &'a Image,
    files: BTreeMap<Vec<u8>, &'a Inode>,
}

impl<'a> Side<'a> {
    /// The image whose layers make `tree`.
    pub(super) fn new(contents: &'a Contents, image: &'a Image, tree: &'a Merged) -> Self {
        Self { contents, image, files: tree.walk().collect() }
    }

    /// Where in which layer the bytes lie: two files that agree in it have the same bytes.
    fn place(&self, extent: &Extent) -> Option<(Digest, u64)> {
        Some((self.image.layers.get(extent.layer)?.blob.digest, extent.offset))
    }

    fn read(&self, extent: &Extent, at: u64, buffer: &mut [u8]) -> Result<(), ContentsError> {
        self.contents.read(self.image, extent, at, buffer)
    }
}

/// Packages whose versions differ.
pub(super) fn packages(a: &Side<'_>, b: &Side<'_>) -> Result<Vec<Package>, ContentsError> {
    let mut old = packages::packages(a.contents, a.image, &a.files)?;
    let mut new = packages::packages(b.contents, b.image, &b.files)?;
    let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let both = names.into_iter().map(|name| Package { old: old.remove(&name), new: new.remove(&name), name });
    Ok(both.filter(|package| package.old != package.new).collect())
}

/// Files that differ.
pub(super) fn files(a: &Side<'_>, b: &Side<'_>) -> Result<Vec<FileDifference>, ContentsError> {
    let mut found = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = a.files.keys().chain(b.files.keys()).collect();
    for path in paths {
        let (state, what) = match (a.files.get(path), b.files.get(path)) {
            (Some(old), Some(new)) => (State::Changed, changes((a, old), (b, new))?),
            (Some(_), None) => (State::Gone, Vec::new()),
            (None, _) => (State::Added, Vec::new()),
        };
        if state != State::Changed || !what.is_empty() {
            found.push(FileDifference { path: shown(path), state, what });
        }
    }
    Ok(found)
}

fn changes((a, old): (&Side<'_>, &Inode), (b, new): (&Side<'_>, &Inode)) -> Result<Vec<Change>, ContentsError> {
    let mut changes = Vec::new();
    if Kind::of(&old.kind) != Kind::of(&new.kind) {
        changes.push(Change::Kind);
    } else if !same_content((a, &old.kind), (b, &new.kind))? {
        changes.push(Change::Content);
    }
    changes.extend(meta_changes(&old.meta, &new.meta));
    Ok(changes)
}

fn meta_changes(old: &Meta, new: &Meta) -> impl Iterator<Item = Change> {
    let differs = [
        (old.mode != new.mode, Change::Mode),
        ((old.uid, old.gid) != (new.uid, new.gid), Change::Owner),
        (old.mtime != new.mtime, Change::Time),
        (old.xattrs != new.xattrs, Change::Attributes),
    ];
    differs.into_iter().filter_map(|(differs, change)| differs.then_some(change))
}

fn same_content((a, old): (&Side<'_>, &InodeKind), (b, new): (&Side<'_>, &InodeKind)) -> Result<bool, ContentsError> {
    match (old, new) {
        (InodeKind::File(old), InodeKind::File(new)) => same_bytes((a, old), (b, new)),
        // What a directory holds is compared name by name.
        (InodeKind::Directory(_), InodeKind::Directory(_)) => Ok(true),
        _ => Ok(old == new),
    }
}

fn same_bytes((a, old): (&Side<'_>, &Extent), (b, new): (&Side<'_>, &Extent)) -> Result<bool, ContentsError> {
    if old.len != new.len {
        return Ok(false);
    }
    if a.place(old) == b.place(new) {
        return Ok(true);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < old.len {
        let count = (old.len - at).min(CHUNK);
        // At most CHUNK, which fits.
        let size = usize::try_from(count).unwrap_or_default();
        left.resize(size, 0);
        right.resize(size, 0);
        a.read(old, at, &mut left)?;
        b.read(new, at, &mut right)?;
        if left != right {
            return Ok(false);
        }
        at += count;
    }
    Ok(true)
}
