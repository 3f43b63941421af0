//! An image of an artifact as something to run: the trees of its layers and how its programs are started.

use super::contents::{Contents, ContentsError, Image, Indexes};
use crate::{image::oci::RunSettings, layer::tree::Tree};
use serde::Deserialize;
use std::sync::Arc;

/// The part of an OCI image configuration that is used here.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: RunSettings,
}

impl Contents {
    /// The trees of the layers of `image`, bottom to top; file contents are parts of the artifact.
    ///
    /// # Errors
    /// [`ContentsError`] if a layer is malformed.
    pub fn layer_trees(&self, image: &Image) -> Result<Vec<Tree>, ContentsError> {
        let file = Arc::new(self.reopened()?);
        let mut indexes = Indexes::new();
        let tree =
            |layer: &super::contents::Layer| Ok(self.index(layer, &mut indexes)?.to_tree(&file, layer.blob.offset));
        image.layers.iter().map(tree).collect()
    }

    /// How programs of `image` are started.
    ///
    /// # Errors
    /// [`ContentsError`] if its configuration cannot be read.
    pub fn run_settings(&self, image: &Image) -> Result<RunSettings, ContentsError> {
        let bytes = self.configuration(image)?;
        let config: Config = serde_json::from_slice(&bytes).map_err(|source| self.malformed(image, source))?;
        Ok(config.config)
    }
}
