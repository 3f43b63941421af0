//! Where layers stand: which layer on top of which others.

use super::{Layer, LayerKind, Recipe};
use std::collections::BTreeSet;

/// A layer in a place: the same layer on other layers below is resolved apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedLayer<'r> {
    /// The layer.
    pub layer: &'r Layer,
    /// The layers of the same image below it whose content bears on what this one resolves to, bottom to top:
    /// the Debian layers for a Debian layer, those and Python packages for Python packages, none for the other kinds.
    pub below: Vec<&'r str>,
}

impl Recipe {
    /// Every layer in every place where it stands, each once; what a layer is built with comes before it.
    ///
    /// Layers that are only tools stand on nothing.
    pub fn placed_layers(&self) -> Vec<PlacedLayer<'_>> {
        let mut placed = Vec::new();
        let mut seen = BTreeSet::new();
        for name in self.tools() {
            self.place(name, &[], &mut placed, &mut seen);
        }
        for image in &self.images {
            for (index, name) in image.layers.iter().enumerate() {
                self.place(name, image.layers.get(..index).unwrap_or_default(), &mut placed, &mut seen);
            }
        }
        placed
    }

    /// The place of layer `name` in `image`, or its place as a tool when `image` is absent.
    pub fn place_of<'r>(&'r self, image: Option<&'r super::Image>, name: &str) -> Option<PlacedLayer<'r>> {
        let layer = self.layers.get(name)?;
        let stack = match image {
            Some(image) => {
                let index = image.layers.iter().position(|member| member == name)?;
                image.layers.get(..index).unwrap_or_default()
            }
            None => &[],
        };
        Some(PlacedLayer { layer, below: self.bearing(layer, stack) })
    }

    /// Names of the layers that something is built or started with, sorted: build roots, stub and init.
    pub fn tools(&self) -> BTreeSet<&str> {
        let mut tools = BTreeSet::new();
        for layer in self.layers.values() {
            if let LayerKind::Cargo(cargo) = &layer.kind {
                tools.insert(cargo.build_root.as_str());
            }
        }
        if let Some(boot) = &self.boot {
            tools.insert(boot.stub.as_str());
            tools.insert(boot.init.as_str());
        }
        tools
    }

    fn place<'r>(
        &'r self,
        name: &str,
        stack: &'r [String],
        placed: &mut Vec<PlacedLayer<'r>>,
        seen: &mut BTreeSet<(&'r str, Vec<&'r str>)>,
    ) {
        let Some(layer) = self.layers.get(name) else { return };
        let below = self.bearing(layer, stack);
        if !seen.insert((layer.name.as_str(), below.clone())) {
            return;
        }
        if let LayerKind::Cargo(cargo) = &layer.kind {
            self.place(&cargo.build_root, &[], placed, seen);
        }
        placed.push(PlacedLayer { layer, below });
    }

    fn bearing<'r>(&'r self, layer: &Layer, stack: &'r [String]) -> Vec<&'r str> {
        let bears = |below: &LayerKind| match layer.kind {
            LayerKind::Debian(_) => matches!(below, LayerKind::Debian(_)),
            LayerKind::Wheels(_) => matches!(below, LayerKind::Debian(_) | LayerKind::Wheels(_)),
            LayerKind::Cargo(_) | LayerKind::Files(_) | LayerKind::Model(_) | LayerKind::Dataset(_) => false,
        };
        let is_bearing = |name: &&String| self.layers.get(name.as_str()).is_some_and(|layer| bears(&layer.kind));
        stack.iter().filter(is_bearing).map(String::as_str).collect()
    }
}
