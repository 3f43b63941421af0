//! The files of layers that were built.

use super::GatherError;
use crate::{
    layer::{
        tar::{IndexKind, LayerIndex, read_index},
        tree::{Content, Node, Tree},
    },
    plan::PlannedLayer,
    store::{FoundLayer, Store},
};
use gap_format::Slice;
use std::{io, sync::Arc};

/// The regular files of a layer, without its directories and links; `None` if it is not built.
pub(super) fn files_of(planned: &PlannedLayer<'_>, store: &Store) -> Result<Option<Tree>, GatherError> {
    let Some((found, index)) = index_of(planned, store)? else { return Ok(None) };
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

/// A layer and what is in it; `None` if it is not built.
pub(super) fn index_of(
    planned: &PlannedLayer<'_>,
    store: &Store,
) -> Result<Option<(FoundLayer, LayerIndex)>, GatherError> {
    let Some(found) = store.layer(&planned.key)? else { return Ok(None) };
    let failed =
        |error| GatherError::Layer { layer: planned.name(), source: io::Error::new(io::ErrorKind::InvalidData, error) };
    let size = found.record.size;
    let index = read_index(&Slice::new(&found.file, found.offset, size), size).map_err(failed)?;
    Ok(Some((found, index)))
}
