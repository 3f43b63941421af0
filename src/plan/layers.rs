//! The parts of a layer in its place: ingredients, state and size.

use super::{Plan, PlanError, PlannedLayer, cargo, dataset, debian, files, model, part::Part, run, wheels};
use crate::{
    layer::tar::TarPlan,
    lock::{Inputs, LockedLayer},
    recipe::{LayerKind, PlacedLayer},
    store::{KeyBuilder, Store},
};
use gap_format::Digest;
use std::{os::unix::ffi::OsStrExt, path::Path};

/// A part of this many bytes whose tree is known goes straight into the artifact and is not copied into the store first.
pub const LARGE: u64 = 16 << 20;

/// Whether a layer is there.
#[derive(Debug)]
pub enum State {
    /// Nobody has looked yet.
    Unseen,
    /// Its bytes are in the store, or in an artifact that was made before.
    Cached,
    /// It must be built, for this reason.
    Missing {
        /// What changed since it was last built here.
        why: String,
    },
    /// It is made of large files, and streamed from where they lie into the artifact.
    Streamed {
        /// Its layout.
        tar: Box<TarPlan>,
        /// What changed since it was last built here.
        why: String,
    },
}

/// Plans the parts of one layer, bottom to top; the layers that it needs are in `plan` already.
pub(super) fn plan<'r>(
    plan: &Plan<'r>,
    place: &PlacedLayer<'r>,
    store: &Store,
) -> Result<Vec<PlannedLayer<'r>>, PlanError> {
    let locked = plan.lock.layer(place).ok_or_else(|| PlanError::NotLocked(place.layer.name.clone()))?;
    let below: Vec<usize> = (0..place.below.len())
        .filter_map(|index| Some(plan.numbers_of(place.below.get(index)?, place.below.get(..index)?)))
        .flatten()
        .collect();
    let built_on = match &place.layer.kind {
        LayerKind::Cargo(cargo) => plan.numbers_of(&cargo.build_root, &[]),
        LayerKind::Run(run) => plan.stack(&run.on),
        LayerKind::Wheels(wheels) => plan.stack(&wheels.sdists.on),
        LayerKind::Dataset(dataset) => dataset::tokenizer_part(plan, dataset),
        _ => Vec::new(),
    };
    if built_on_unlocked(plan, place) {
        return Err(PlanError::NotLocked(place.layer.name.clone()));
    }
    let parts = parts(plan, place, locked, &below, &built_on, store)?;
    let planned = parts.into_iter().map(|part| PlannedLayer {
        place: place.clone(),
        locked,
        below: below.clone(),
        built_on: built_on.clone(),
        identity: identity(&plan.recipe.path, place, part.name.as_deref()),
        key: part.ingredients.key(),
        part: part.name,
        ingredients: part.ingredients,
        sources: part.sources,
        tree: part.tree,
        state: State::Unseen,
        fetch: Vec::new(),
        size: part.estimate,
    });
    Ok(planned.collect())
}

/// Whether a layer is built in the tree of one that has no rows.
fn built_on_unlocked(plan: &Plan<'_>, place: &PlacedLayer<'_>) -> bool {
    let is_unlocked = |name: &String| plan.unlocked.iter().any(|unlocked| unlocked.layer.name == *name);
    match &place.layer.kind {
        LayerKind::Cargo(cargo) => is_unlocked(&cargo.build_root),
        LayerKind::Run(run) => run.on.iter().any(is_unlocked),
        LayerKind::Wheels(wheels) => wheels.sdists.on.iter().any(is_unlocked),
        LayerKind::Dataset(dataset) => dataset.tokenizer_model().is_some_and(|model| is_unlocked(&model.to_owned())),
        _ => false,
    }
}

/// What the parts of a layer are made of, by its kind.
fn parts(
    plan: &Plan<'_>,
    place: &PlacedLayer<'_>,
    locked: &LockedLayer,
    below: &[usize],
    built_on: &[usize],
    store: &Store,
) -> Result<Vec<Part>, PlanError> {
    let name = || place.layer.name.clone();
    let part = match (&place.layer.kind, &locked.inputs) {
        (LayerKind::Debian(layer), Inputs::Debian(rows)) => debian::part(layer, rows, plan.numbered(below)),
        (LayerKind::Cargo(layer), Inputs::Cargo(rows)) => {
            cargo::part(layer, rows, plan.numbered(built_on).map(|layer| layer.key))
        }
        (LayerKind::Dataset(layer), Inputs::Dataset(rows)) => dataset::part(layer, rows, plan.numbered(built_on)),
        (LayerKind::Run(layer), Inputs::Run(_)) => run::part(layer, plan.numbered(built_on)),
        (LayerKind::Files(layer), Inputs::Files(_)) => {
            files::part(layer).map_err(|source| PlanError::Files { layer: name(), source })?
        }
        (LayerKind::Wheels(layer), Inputs::Wheels(rows)) => {
            let builders = if layer.sdists.on.is_empty() { below } else { built_on };
            let (below, builders) = (plan.numbered(below), plan.numbered(builders));
            return wheels::parts(layer, rows, plan.recipe.appliance.arch, below, builders)
                .map_err(|source| PlanError::Wheels { layer: name(), source });
        }
        (LayerKind::Model(layer), Inputs::Model(rows)) => {
            return model::plan(place.layer.short_name(), layer, rows, store)
                .map_err(|source| PlanError::Model { layer: name(), source: Box::new(source) });
        }
        _ => return Err(PlanError::NotLocked(name())),
    };
    Ok(vec![part])
}

fn identity(recipe: &Path, place: &PlacedLayer<'_>, part: Option<&str>) -> Digest {
    let path = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
    let mut key = KeyBuilder::new("place", 1);
    key.list("recipe", [path.as_os_str().as_bytes()]).text("name", &place.layer.name).list("below", &place.below);
    key.list("part", part);
    key.finish()
}

/// Looks for a part; where it is not there, finds out what it takes to build it. Large files of a part that is `in_image`
/// are not copied into the store.
pub(super) fn look(planned: &mut PlannedLayer<'_>, in_image: bool, store: &Store) -> Result<(), PlanError> {
    if let Some(found) = store.layer(&planned.key)? {
        planned.size = found.record.size;
        planned.state = State::Cached;
        return Ok(());
    }
    let why = planned.ingredients.why_not_cached(store, &planned.identity);
    let missing = planned.sources.iter().filter(|source| !store.has_source(&source.sha256, Some(source.size)));
    planned.fetch = missing.copied().collect();
    planned.state = match &planned.tree {
        None => State::Missing { why },
        Some(tree) => {
            let tar = TarPlan::new(tree).map_err(|source| PlanError::Tar { layer: planned.name(), source })?;
            planned.size = tar.size();
            match in_image && tar.size() >= LARGE {
                true => State::Streamed { tar: Box::new(tar), why },
                false => State::Missing { why },
            }
        }
    };
    Ok(())
}
