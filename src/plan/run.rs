//! What a program makes: a layer of one part.

use super::{Ingredients, PlannedLayer, part::Part};
use crate::recipe::RunLayer;

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;
/// What a program leaves at most, in bytes, as far as anybody can tell beforehand.
const ESTIMATE: u64 = 64 << 20;

/// The part that the program makes in the tree of `below`.
pub(super) fn part<'p>(layer: &RunLayer, below: impl Iterator<Item = &'p PlannedLayer<'p>>) -> Part {
    let mut ingredients = Ingredients::new("run", FORMAT);
    ingredients.add("command", format!("{:?}", layer.command));
    for (name, value) in &layer.env {
        ingredients.add(format!("variable {name}"), value.clone());
    }
    ingredients.add("output", layer.output.to_string());
    ingredients.add("destination", layer.to.to_string());
    for (number, part) in below.enumerate() {
        ingredients.add(format!("layer below {number} ({})", part.name()), part.key.to_hex());
    }
    Part { name: None, ingredients, sources: Vec::new(), tree: None, estimate: ESTIMATE }
}
