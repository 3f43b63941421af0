//! An image of an artifact as something to run: what lies in it, and how its programs are started.

use super::contents::{Contents, ContentsError, Image, Indexes};
use crate::{
    image::oci::RunSettings,
    layer::{stack::Stack, tree::Tree},
};
use gap_format::escape::escaped;
use serde::Deserialize;
use std::sync::Arc;

/// The part of an OCI image configuration that is used here.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: RunSettings,
}

impl Contents {
    /// What lies in `image` once the images `over` are laid over it; file contents are parts of the artifact.
    ///
    /// # Errors
    /// [`ContentsError`] if a layer, or the stack of them, is malformed.
    pub fn laid(&self, image: &Image, over: &[&Image]) -> Result<Tree, ContentsError> {
        let file = Arc::new(self.reopened()?);
        let (mut stack, mut indexes) = (Stack::default(), Indexes::new());
        for image in std::iter::once(image).chain(over.iter().copied()) {
            for layer in &image.layers {
                let tree = self.index(layer, &mut indexes)?.to_tree(&file, layer.blob.offset);
                stack.apply(&tree).map_err(|source| ContentsError::Stack {
                    path: self.path().to_owned(),
                    image: escaped(&image.name),
                    source,
                })?;
            }
        }
        Ok(stack.into_tree())
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
