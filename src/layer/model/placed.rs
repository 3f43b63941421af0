//! A model of the recipe with its files and its place in an image.

use super::{CachePlace, ModelPart, Placement, parts};
use crate::{
    layer::tree::PathError,
    model::ModelFiles,
    recipe::{ModelLayer, ModelSource},
    source::model::{LockedHubModel, LockedModel, ModelError, Selection, commit_of, list_directory},
    store::Store,
};
use std::path::Path;

/// Why the layers of a model cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ModelPlaceError {
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

/// A model in its place: where it goes, and its files as they lie in the store or in their directory.
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
    /// [`ModelPlaceError`].
    pub fn find(name: &str, layer: &ModelLayer, rows: &LockedModel, store: &Store) -> Result<Self, ModelPlaceError> {
        let name = name.to_owned();
        match (&layer.source, rows) {
            (ModelSource::Hub(_), LockedModel::Hub(rows)) => {
                let LockedHubModel { repo, revision, commit, .. } = rows;
                let cache = CachePlace { repo: repo.clone(), revision: revision.clone(), commit: *commit };
                Ok(Self { placement: Placement { name, cache: Some(cache) }, files: rows.files_in(store) })
            }
            (ModelSource::Directory { .. }, LockedModel::Directory(_)) => Self::in_directory(&name, layer),
            _ => Err(ModelPlaceError::Rows),
        }
    }

    /// The model `name` as it lies in its directory now.
    ///
    /// # Errors
    /// [`ModelPlaceError`]; of one from a hub there is none in a directory.
    pub fn in_directory(name: &str, layer: &ModelLayer) -> Result<Self, ModelPlaceError> {
        let ModelSource::Directory { base, path, name: repo } = &layer.source else {
            return Err(ModelPlaceError::Rows);
        };
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
    /// [`ModelPlaceError::Path`].
    pub fn parts(&self) -> Result<Vec<ModelPart>, ModelPlaceError> {
        Ok(parts(&self.placement, &self.files)?)
    }
}
