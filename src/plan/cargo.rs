//! A binary of a Cargo workspace: a layer of one part.

use super::{Ingredients, PlannedLayer, part::Part};
use crate::{recipe::CargoLayer, source::cargo::LockedCargo};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;
/// What a binary and its debug leftovers come to at most, in bytes.
const ESTIMATE: u64 = 64 << 20;

/// The part that is built in the tree of `build_root`.
pub(super) fn part<'p>(
    layer: &CargoLayer,
    rows: &LockedCargo,
    build_root: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Part {
    let mut ingredients = Ingredients::new("cargo", FORMAT);
    ingredients.add("package", layer.package.clone());
    ingredients.add("binary", layer.bin.clone());
    ingredients.add("destination", layer.to.to_string());
    ingredients.add("static", layer.static_link.to_string());
    ingredients.add("features", layer.features.join(","));
    ingredients.add("sources", rows.sources.to_string());
    ingredients.add("toolchain", format!("{:?}", rows.toolchain));
    let root: Vec<String> = build_root.map(|layer| layer.key.to_hex()).collect();
    ingredients.add("build root", root.join(" "));
    for row in &rows.crates {
        ingredients.add(format!("crate {} {}", row.name, row.version), row.sha256.to_string());
    }
    Part { name: None, ingredients, sources: Vec::new(), tree: None, estimate: ESTIMATE }
}
