//! Models: a part for each file of weights and one for the small files, whose trees are known beforehand.

use super::{
    Ingredients,
    files::describe,
    part::{Part, Wanted},
};
use crate::{
    layer::{
        model::{CachePlace, ModelPart, Placement, parts},
        tree::PathError,
    },
    model::ModelFiles,
    recipe::{ModelLayer, ModelSource},
    source::model::{LockedHubModel, LockedModel, ModelError, Selection, commit_of, list_directory},
    store::Store,
};
use std::path::Path;

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;

/// Why the parts of a model cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum ModelPlanError {
    /// See [`ModelError`].
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A path cannot be in a layer.
    #[error("a file of the model: {0}")]
    Path(#[from] PathError),
    /// The rows are those of something else.
    #[error("its rows in the lock are not those of the recipe; run `gapimage lock`")]
    Rows,
}

/// A model that is planned: where it goes, and its files as they lie in the store or in their directory.
#[derive(Debug)]
pub struct PlacedModel {
    /// Where it lies in the image.
    pub placement: Placement,
    /// Its files.
    pub files: ModelFiles,
}

impl PlacedModel {
    /// The model `name` as it is locked, or as it lies in its directory now.
    ///
    /// # Errors
    /// [`ModelPlanError`].
    pub fn find(name: &str, layer: &ModelLayer, rows: &LockedModel, store: &Store) -> Result<Self, ModelPlanError> {
        let name = name.to_owned();
        match (&layer.source, rows) {
            (ModelSource::Hub(_), LockedModel::Hub(rows)) => {
                let LockedHubModel { repo, revision, commit, .. } = rows;
                let cache = CachePlace { repo: repo.clone(), revision: revision.clone(), commit: *commit };
                Ok(Self { placement: Placement { name, cache: Some(cache) }, files: rows.files_in(store) })
            }
            (ModelSource::Directory { .. }, LockedModel::Directory(_)) => Self::in_directory(&name, layer),
            _ => Err(ModelPlanError::Rows),
        }
    }

    /// The model `name` as it lies in its directory now.
    ///
    /// # Errors
    /// [`ModelPlanError`]; of one from a hub there is none in a directory.
    pub fn in_directory(name: &str, layer: &ModelLayer) -> Result<Self, ModelPlanError> {
        let ModelSource::Directory { base, path, name: repo } = &layer.source else { return Err(ModelPlanError::Rows) };
        let files = list_directory(&base.join(Path::new(path)), &Selection::of_model(&layer.include, &layer.exclude)?)?;
        let cache = match repo {
            Some(repo) => {
                Some(CachePlace { repo: repo.clone(), revision: "main".to_owned(), commit: commit_of(&files)? })
            }
            None => None,
        };
        Ok(Self { placement: Placement { name: name.to_owned(), cache }, files })
    }

    /// Its layers, bottom to top.
    ///
    /// # Errors
    /// [`ModelPlanError::Path`].
    pub fn parts(&self) -> Result<Vec<ModelPart>, ModelPlanError> {
        Ok(parts(&self.placement, &self.files)?)
    }
}

/// The parts of the model `name`.
pub(super) fn plan(
    name: &str,
    layer: &ModelLayer,
    rows: &LockedModel,
    store: &Store,
) -> Result<Vec<Part>, ModelPlanError> {
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
