//! One layer's ingredients, state and size, by its kind.

#[cfg(test)]
mod tests;

use super::{Ingredients, Plan, PlanError, PlannedLayer};
use crate::{
    layer::{
        files::files_tree,
        tar::TarPlan,
        tree::{Content, Node, Tree},
    },
    lock::{Inputs, LockedDebian, LockedLayer},
    recipe::{CargoLayer, DebianLayer, LayerKind, PlacedLayer},
    source::{cargo::LockedCargo, debian::LockedPackage},
    store::{KeyBuilder, LayerKey, Store},
};
use gap_format::Digest;
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// Raised when a builder gives other bytes for the same ingredients.
const DEBIAN_FORMAT: u64 = 1;
const CARGO_FORMAT: u64 = 1;
const FILES_FORMAT: u64 = 1;
/// A layer of files of this many bytes goes straight into the artifact and is not copied into the store first.
const LARGE: u64 = 16 << 20;
/// What a binary and its debug leftovers come to at most, in bytes.
const CARGO_ESTIMATE: u64 = 64 << 20;

/// Whether a layer is there.
#[derive(Debug)]
pub enum State {
    /// Nobody has looked yet.
    Unseen(Option<Tree>),
    /// Its bytes are in the store, or in an artifact that was made before.
    Cached,
    /// It must be built, for this reason.
    Missing {
        /// What changed since it was last built here.
        why: String,
    },
    /// It is made of large files beside the recipe, and streamed from there into the artifact.
    Streamed {
        /// Its layout.
        tar: Box<TarPlan>,
        /// What changed since it was last built here.
        why: String,
    },
}

/// Plans one layer; those that it needs are in `plan` already.
pub(super) fn plan<'r>(plan: &Plan<'r>, place: PlacedLayer<'r>) -> Result<PlannedLayer<'r>, PlanError> {
    let locked = plan.lock.layer(&place).ok_or_else(|| PlanError::NotLocked(place.layer.name.clone()))?;
    let below: Vec<usize> = (0..place.below.len())
        .filter_map(|index| plan.number_of(place.below.get(index)?, place.below.get(..index)?))
        .collect();
    let build_root = match &place.layer.kind {
        LayerKind::Cargo(cargo) => plan.number_of(&cargo.build_root, &[]),
        _ => None,
    };
    let mut tree = None;
    let ingredients = match (&place.layer.kind, &locked.inputs) {
        (LayerKind::Debian(layer), Inputs::Debian(rows)) => {
            debian(layer, rows, below.iter().filter_map(|&number| plan.layers.get(number)))
        }
        (LayerKind::Cargo(layer), Inputs::Cargo(rows)) => {
            cargo(layer, rows, build_root.and_then(|number| plan.layers.get(number)).map(|root| root.key))
        }
        (LayerKind::Files(layer), Inputs::Files(_)) => {
            let taken =
                files_tree(layer).map_err(|source| PlanError::Files { layer: place.layer.name.clone(), source })?;
            let ingredients = self::files(&taken);
            tree = Some(taken);
            ingredients
        }
        _ => return Err(PlanError::NotLocked(place.layer.name.clone())),
    };
    let key = ingredients.key();
    let (state, fetch) = (State::Unseen(tree), Vec::new());
    let identity = identity(&plan.recipe.path, &place);
    Ok(PlannedLayer { place, locked, below, build_root, identity, ingredients, key, state, fetch, size: 0 })
}

fn identity(recipe: &Path, place: &PlacedLayer<'_>) -> Digest {
    let path = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
    let mut key = KeyBuilder::new("place", 1);
    key.list("recipe", [path.as_os_str().as_bytes()]).text("name", &place.layer.name).list("below", &place.below);
    key.finish()
}

/// Looks for the layer; where it is not there, finds out what it takes to build it. Large files of a layer that is
/// `in_image` are not copied into the store.
pub(super) fn look(planned: &mut PlannedLayer<'_>, in_image: bool, store: &Store) -> Result<(), PlanError> {
    let State::Unseen(tree) = std::mem::replace(&mut planned.state, State::Cached) else { return Ok(()) };
    if let Some(found) = store.layer(&planned.key)? {
        planned.size = found.record.size;
        return Ok(());
    }
    let why = planned.ingredients.why_not_cached(store, &planned.identity);
    let layer = || planned.place.layer.name.clone();
    if let Some(tree) = tree {
        let tar = TarPlan::new(&tree).map_err(|source| PlanError::Tar { layer: layer(), source })?;
        planned.size = tar.size();
        planned.state = match in_image && tar.size() >= LARGE {
            true => State::Streamed { tar: Box::new(tar), why },
            false => State::Missing { why },
        };
        return Ok(());
    }
    planned.state = State::Missing { why };
    planned.size = CARGO_ESTIMATE;
    if let LockedLayer { inputs: Inputs::Debian(rows), .. } = planned.locked {
        planned.fetch = missing(rows, store);
        planned.size = rows.packages.iter().map(|package| package.installed_size.saturating_mul(1024)).sum();
    }
    Ok(())
}

fn missing<'r>(rows: &'r LockedDebian, store: &Store) -> Vec<&'r LockedPackage> {
    rows.packages.iter().filter(|package| !store.has_source(&package.sha256, Some(package.size))).collect()
}

fn debian<'p>(
    layer: &DebianLayer,
    rows: &LockedDebian,
    below: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Ingredients {
    let mut ingredients = Ingredients::new("debian", DEBIAN_FORMAT);
    ingredients.add("configure", layer.configure.to_string());
    for package in &rows.packages {
        let value = format!("{} {} {}", package.version, package.sha256, package.order);
        ingredients.add(format!("package {}:{}", package.name, package.arch), value);
    }
    for (number, layer) in below.enumerate() {
        ingredients.add(format!("layer below {number} ({})", layer.place.layer.name), layer.key.to_hex());
    }
    ingredients
}

fn cargo(layer: &CargoLayer, rows: &LockedCargo, build_root: Option<LayerKey>) -> Ingredients {
    let mut ingredients = Ingredients::new("cargo", CARGO_FORMAT);
    ingredients.add("package", layer.package.clone());
    ingredients.add("binary", layer.bin.clone());
    ingredients.add("destination", layer.to.to_string());
    ingredients.add("static", layer.static_link.to_string());
    ingredients.add("features", layer.features.join(","));
    ingredients.add("sources", rows.sources.to_string());
    ingredients.add("toolchain", format!("{:?}", rows.toolchain));
    ingredients.add("build root", build_root.map(LayerKey::to_hex).unwrap_or_default());
    for row in &rows.crates {
        ingredients.add(format!("crate {} {}", row.name, row.version), row.sha256.to_string());
    }
    ingredients
}

/// Small files count by their content. Large ones count by what tells a file from its successor, so that gigabytes of
/// weights are read once, while they are laid down; their digest is in the layer's record.
fn files(tree: &Tree) -> Ingredients {
    let mut ingredients = Ingredients::new("files", FILES_FORMAT);
    for (path, node) in tree.iter() {
        ingredients.add(format!("file {path}"), describe(node));
    }
    ingredients
}

fn describe(node: &Node) -> String {
    match node {
        Node::File { meta, content: Content::Path { path, len } } if *len < LARGE => {
            let digest = fs::read(path).map(|data| Digest::of(&data).to_string());
            format!("{:o} {len} {}", meta.mode, digest.unwrap_or_else(|error| error.to_string()))
        }
        Node::File { meta, content: Content::Path { path, len } } => match fs::metadata(path) {
            Ok(now) => format!(
                "{:o} {len} {}:{} {}.{} {}.{}",
                meta.mode,
                now.dev(),
                now.ino(),
                now.mtime(),
                now.mtime_nsec(),
                now.ctime(),
                now.ctime_nsec()
            ),
            Err(error) => error.to_string(),
        },
        Node::Symlink { target, .. } => format!("-> {}", target.escape_ascii()),
        Node::Directory { meta, .. } => format!("directory {:o}", meta.mode),
        other => format!("{other:?}"),
    }
}
