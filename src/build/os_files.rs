//! The files of a merged image, read from the layers that hold them.

use crate::{
    boot::{modinfo, modules::OsFiles},
    image::merge::{Inode, InodeKind, Merged},
    layer::tree::TreePath,
};
use gap_format::ReadAt;
use std::{collections::BTreeMap, io};

/// A merged image and the bytes of its layers.
pub struct MergedFiles<'a> {
    files: BTreeMap<TreePath, &'a Inode>,
    layers: Vec<&'a dyn ReadAt>,
}

impl<'a> MergedFiles<'a> {
    /// The regular files of `merged`, whose layers are `layers`, the lowest first.
    pub fn new(merged: &'a Merged, layers: Vec<&'a dyn ReadAt>) -> Self {
        let files = merged
            .walk()
            .filter(|(_, inode)| matches!(inode.kind, InodeKind::File(_)))
            .filter_map(|(path, inode)| Some((TreePath::new(path).ok()?, inode)))
            .collect();
        Self { files, layers }
    }
}

impl OsFiles for MergedFiles<'_> {
    fn files_below(&self, directory: &TreePath) -> Vec<TreePath> {
        self.files.keys().filter(|path| path.is_within(directory)).cloned().collect()
    }

    fn read(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let Some(InodeKind::File(extent)) = self.files.get(path).map(|inode| &inode.kind) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if extent.len > modinfo::MAX_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let layer = self.layers.get(extent.layer).ok_or(io::ErrorKind::NotFound)?;
        let mut data = vec![0; usize::try_from(extent.len).map_err(|_| io::ErrorKind::FileTooLarge)?];
        layer.read_exact_at(&mut data, extent.offset)?;
        Ok(data)
    }
}
