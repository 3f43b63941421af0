//! Layers of files from beside the recipe.

use super::tree::Tree;
use crate::{
    recipe::FilesLayer,
    source::files::{FilesError, Request, collect},
};
use std::path::Path;

/// Modification time of all files that come from beside the recipe: 1980-01-01, the earliest that every archive format
/// can hold. A checkout's own times differ from one machine to the next.
pub const FILES_DATE: i64 = 315_532_800;

/// The files of a layer as they are on disk now; a later item of the recipe wins. Large contents are not read.
///
/// # Errors
/// [`FilesError`] if one cannot be taken.
pub fn files_tree(layer: &FilesLayer) -> Result<Tree, FilesError> {
    let mut whole = Tree::new();
    for item in &layer.items {
        let request = Request {
            base: &item.base,
            path: Path::new(&item.path),
            to: &item.to,
            mode: item.mode,
            uid: 0,
            gid: 0,
            mtime: FILES_DATE,
        };
        for (path, node) in collect(&request)? {
            whole.insert(path, node);
        }
    }
    Ok(whole)
}
