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
            self.place_stack(&image.layers, &mut placed, &mut seen);
        }
        placed
    }

    /// The places of the layers of a stack, bottom to top.
    pub fn places_in<'r>(&'r self, stack: &'r [String]) -> Vec<PlacedLayer<'r>> {
        let place = |(index, name): (usize, &'r String)| {
            let layer = self.layers.get(name)?;
            Some(PlacedLayer { layer, below: self.bearing(layer, stack.get(..index).unwrap_or_default()) })
        };
        stack.iter().enumerate().filter_map(place).collect()
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

    fn place_stack<'r>(
        &'r self,
        stack: &'r [String],
        placed: &mut Vec<PlacedLayer<'r>>,
        seen: &mut BTreeSet<(&'r str, Vec<&'r str>)>,
    ) {
        for (index, name) in stack.iter().enumerate() {
            self.place(name, stack.get(..index).unwrap_or_default(), placed, seen);
        }
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
        match &layer.kind {
            LayerKind::Cargo(cargo) => self.place(&cargo.build_root, &[], placed, seen),
            LayerKind::Run(run) => self.place_stack(&run.on, placed, seen),
            LayerKind::Wheels(wheels) => self.place_stack(&wheels.sdists.on, placed, seen),
            LayerKind::Dataset(dataset) => {
                dataset.tokenizer_model().into_iter().for_each(|model| self.place(model, &[], placed, seen));
            }
            _ => {}
        }
        placed.push(PlacedLayer { layer, below });
    }

    fn bearing<'r>(&'r self, layer: &Layer, stack: &'r [String]) -> Vec<&'r str> {
        let bears = |below: &LayerKind| match layer.kind {
            LayerKind::Debian(_) => matches!(below, LayerKind::Debian(_)),
            LayerKind::Wheels(_) => matches!(below, LayerKind::Debian(_) | LayerKind::Wheels(_)),
            LayerKind::Cargo(_)
            | LayerKind::Run(_)
            | LayerKind::Files(_)
            | LayerKind::Model(_)
            | LayerKind::Dataset(_) => false,
        };
        let is_bearing = |name: &&String| self.layers.get(name.as_str()).is_some_and(|layer| bears(&layer.kind));
        stack.iter().filter(is_bearing).map(String::as_str).collect()
    }
}
