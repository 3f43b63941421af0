//! Layers that are there to be laid down: their bytes and their indexes.

use super::{BuildError, Request};
use crate::{
    layer::{
        sink::Sink,
        tar::{LayerIndex, TarPlan, read_index},
        tree::Compared,
    },
    lock::Inputs,
    pack::Known,
    plan::{Plan, PlanError, PlannedLayer, State},
};
use gap_format::{ReadAt, Slice};
use std::{fs::File, io};

/// A layer whose bytes can be had.
pub struct Opened<'p> {
    /// Its name ([`crate::plan::PlannedLayer::name`]).
    pub name: String,
    /// What it holds.
    pub index: LayerIndex,
    /// What it is, if it was made before.
    pub known: Option<Known>,
    /// Its bytes.
    pub bytes: LayerBytes<'p>,
}

/// Where the bytes of a layer come from.
pub enum LayerBytes<'p> {
    /// A range of a file: the store's own, or an artifact made before.
    Stored {
        /// The bytes.
        slice: Slice<File>,
        /// How many there are.
        size: u64,
    },
    /// Files where they lie, laid out as a tar.
    Streamed {
        /// The layout.
        tar: &'p TarPlan,
        /// Whether each file is compared, or the whole.
        compared: Compared,
    },
}

impl LayerBytes<'_> {
    /// Streams all of it into memory that `sink` lends.
    ///
    /// # Errors
    /// What the system said, and those of the sink.
    pub fn fill(&self, sink: &mut dyn Sink) -> io::Result<()> {
        match self {
            Self::Streamed { tar, compared } => tar.fill(sink, *compared),
            Self::Stored { slice, size } => sink.copy(slice, 0, *size),
        }
    }

    /// The contents of its files, at their places in the layer.
    pub fn reader(&self) -> &dyn ReadAt {
        match self {
            Self::Stored { slice, .. } => slice,
            Self::Streamed { tar, .. } => *tar,
        }
    }
}

/// Opens every layer of the plan.
///
/// # Errors
/// [`BuildError`] if one vanished from the store meanwhile, or is damaged there.
pub fn open_all<'p>(request: &Request<'_>, plan: &'p Plan<'_>) -> Result<Vec<Opened<'p>>, BuildError> {
    let opened = plan.layers.iter().map(|planned| {
        let name = planned.name();
        if let State::Streamed { tar, .. } = &planned.state {
            let known = made_before(request, planned, tar)?;
            let compared = if known.is_some() { Compared::Whole } else { Compared::Each };
            return Ok(Opened { name, index: tar.index(), known, bytes: LayerBytes::Streamed { tar, compared } });
        }
        let found = request.store.layer(&planned.key)?.ok_or_else(|| PlanError::NotLocked(name.clone()))?;
        let size = found.record.size;
        let slice = Slice::new(found.file, found.offset, size);
        let index = match read_index(&slice, size) {
            Ok(index) => index,
            Err(source) => {
                // Then the next build makes it anew.
                request.store.discard_layer(&planned.key)?;
                return Err(BuildError::Layer { layer: name, source: Box::new(source) });
            }
        };
        let known = Some(Known { digest: found.record.digest, root: found.record.verity_root });
        Ok(Opened { name, index, known, bytes: LayerBytes::Stored { slice, size } })
    });
    opened.collect()
}

/// What a part came to when it was last made of the same wheels: each of their files was compared with its `RECORD` then,
/// and the packer compares the whole with what it was. The keys of layers of other kinds do not cover every byte that is
/// streamed.
fn made_before(request: &Request<'_>, planned: &PlannedLayer<'_>, tar: &TarPlan) -> Result<Option<Known>, BuildError> {
    if !matches!(planned.locked.inputs, Inputs::Wheels(_)) {
        return Ok(None);
    }
    let record = request.store.record(&planned.key)?.filter(|record| record.size == tar.size());
    Ok(record.map(|record| Known { digest: record.digest, root: record.verity_root }))
}
