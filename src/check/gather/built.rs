//! The files of layers that were built.

use super::GatherError;
use crate::{
    layer::{
        tar::{IndexKind, read_index},
        tree::{Content, Node, Tree},
    },
    plan::PlannedLayer,
    store::Store,
};
use gap_format::Slice;
use std::{io, sync::Arc};

/// The regular files of a layer, without its directories and links; `None` if it is not built.
pub(super) fn files_of(planned: &PlannedLayer<'_>, store: &Store) -> Result<Option<Tree>, GatherError> {
    let Some(found) = store.layer(&planned.key)? else { return Ok(None) };
    let failed =
        |error| GatherError::Layer { layer: planned.name(), source: io::Error::new(io::ErrorKind::InvalidData, error) };
    let size = found.record.size;
    let slice = Slice::new(found.file.try_clone().map_err(failed)?, found.offset, size);
    let index = read_index(&slice, size).map_err(|error| failed(io::Error::other(error)))?;
    let file = Arc::new(found.file);
    let files = index.entries.into_iter().filter_map(|entry| match entry.kind {
        IndexKind::File { offset, len } => {
            let content = Content::Slice { file: Arc::clone(&file), offset: found.offset + offset, len };
            Some((entry.path, Node::File { meta: entry.meta, content }))
        }
        _ => None,
    });
    Ok(Some(files.collect()))
}
