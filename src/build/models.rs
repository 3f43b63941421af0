//! Models: fetched from their hub, and looked at before they are laid down.

use super::{BuildError, Problem, Request};
use crate::{
    layer::model::PlacedModel,
    lock::{Inputs, Lock},
    model::{Inspection, Level, inspect},
    plan::{Plan, PlannedLayer, State},
    progress::{Stage, Work},
    recipe::{Image, ImageKind, LayerKind, ModelLayer, ModelSource},
    source::{
        http::Client,
        model::{Hub, LockedModel, Pinned, RepoKind, Repository, fetch as fetch_files},
    },
};
use gap_format::Digest;
use std::{collections::BTreeSet, fmt};

/// A model that cannot be used, or must not be trusted.
#[derive(Debug, thiserror::Error)]
pub struct Refused(Inspection);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the model cannot be taken as it is:")?;
        self.0.failures().try_for_each(|failure| write!(f, "\n- {failure}"))
    }
}

/// The licence of the image of a model, where its card names exactly one.
pub fn license(lock: &Lock, image: &Image) -> Option<String> {
    let layer = image.layers.first().filter(|_| image.kind == ImageKind::Model)?;
    let rows = lock.layers.iter().find(|row| row.name == *layer)?;
    match &rows.inputs {
        Inputs::Model(model) => match model.licenses() {
            [only] => Some(only.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Fetches what is `wanted` of a model's files.
pub fn fetch(
    request: &Request<'_>,
    client: &Client,
    layer: &ModelLayer,
    rows: &LockedModel,
    wanted: &BTreeSet<Digest>,
) -> Result<(), Problem> {
    let (ModelSource::Hub(named), LockedModel::Hub(rows)) = (&layer.source, rows) else { return Ok(()) };
    let hub = Hub::find(client, named.endpoint.as_deref())?;
    let files = rows.files.iter().filter(|file| wanted.contains(&file.sha256));
    let repository = Repository { kind: RepoKind::Model, name: &rows.repo };
    let files = files.map(Pinned::from);
    Ok(fetch_files(&hub, repository, &rows.commit, files, request.store, request.progress)?)
}

/// Looks whether every model that is to be laid down has all that it needs, and is what it says.
///
/// # Errors
/// [`BuildError::Layer`] with [`Refused`] for the first that cannot be taken.
pub fn check(request: &Request<'_>, plan: &Plan<'_>) -> Result<(), BuildError> {
    for parts in plan.layers.chunk_by(|a, b| a.place == b.place) {
        let is_new = parts.iter().any(|part| !matches!(part.state, State::Cached));
        let Some(planned) = parts.first().filter(|_| is_new) else { continue };
        if let (LayerKind::Model(layer), Inputs::Model(rows)) = (&planned.place.layer.kind, &planned.locked.inputs) {
            let failed = |source| BuildError::Layer { layer: planned.place.layer.name.clone(), source };
            check_one(request, planned, layer, rows).map_err(failed)?;
        }
    }
    Ok(())
}

fn check_one(
    request: &Request<'_>,
    planned: &PlannedLayer<'_>,
    layer: &ModelLayer,
    rows: &LockedModel,
) -> Result<(), Problem> {
    let name = &planned.place.layer.name;
    (request.begin)(&Work::on(Stage::Build, name, "looking at the model"));
    let model = PlacedModel::find(planned.place.layer.short_name(), layer, rows, request.store)?;
    let inspection = inspect(&model.files, rows.licenses(), &layer.allow_pickle);
    for finding in inspection.findings.iter().filter(|finding| finding.level == Level::Warn) {
        (request.note)(&format!("layer `{name}`: warning: {finding}"));
    }
    match inspection.failures().count() {
        0 => Ok(()),
        _ => Err(Refused(inspection).into()),
    }
}
