//! Models: a part for each file of weights and one for the small files, whose trees are known beforehand.

use super::{
    Ingredients,
    files::describe,
    part::{Part, Wanted},
};
use crate::{
    layer::model::{ModelPart, ModelPlaceError, PlacedModel},
    recipe::ModelLayer,
    source::model::{LockedHubModel, LockedModel},
    store::Store,
};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;

/// The parts of the model `name`.
pub(super) fn plan(
    name: &str,
    layer: &ModelLayer,
    rows: &LockedModel,
    store: &Store,
) -> Result<Vec<Part>, ModelPlaceError> {
    let parts = PlacedModel::find(name, layer, rows, store)?.parts()?;
    Ok(parts
        .into_iter()
        .map(|part| match rows {
            LockedModel::Hub(rows) => hub(part, rows, name),
            LockedModel::Directory(_) => directory(part),
        })
        .collect())
}

/// Files of a hub count by the digests that are locked, be they here or not.
fn hub(part: ModelPart, rows: &LockedHubModel, name: &str) -> Part {
    let mut ingredients = Ingredients::new("model", FORMAT);
    ingredients.add("directory", name);
    ingredients.add("cache", format!("{} {} {}", rows.repo, rows.revision, rows.commit));
    let files = part.files.iter().filter_map(|path| rows.file(path));
    let mut sources = Vec::new();
    for file in files {
        ingredients.add(format!("file {}", file.path), format!("{} {}", file.sha256, file.size));
        sources.push(Wanted { sha256: file.sha256, size: file.size });
    }
    Part { name: Some(part.name), ingredients, sources, tree: Some(part.tree), estimate: 0 }
}

/// Files of a directory count as files beside the recipe do.
fn directory(part: ModelPart) -> Part {
    let mut ingredients = Ingredients::new("model directory", FORMAT);
    for (path, node) in part.tree.iter() {
        ingredients.add(format!("file {path}"), describe(node));
    }
    Part { name: Some(part.name), ingredients, sources: Vec::new(), tree: Some(part.tree), estimate: 0 }
}
