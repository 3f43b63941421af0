//! A data set: a layer of one part, prepared from its files.

use super::{
    Ingredients, Plan, PlannedLayer,
    part::{Part, Wanted},
};
use crate::{
    layer::model::tokenizer_path,
    recipe::{DatasetLayer, DatasetSource, Preparation},
    source::dataset::LockedDataset,
};
use gap_data::PREPARATION;

/// Raised when the builder gives other bytes for the same ingredients, whatever prepares the data.
const FORMAT: u64 = 1;
/// What the card and the directory take.
const OVERHEAD: u64 = 1 << 20;

/// The part of a model that holds the tokenizer in whose tokens lengths are counted, by number; none where none is named or
/// the model has none.
pub(super) fn tokenizer_part(plan: &Plan<'_>, layer: &DatasetLayer) -> Vec<usize> {
    let Some(model) = layer.tokenizer_model() else { return Vec::new() };
    let Ok(path) = tokenizer_path(model) else { return Vec::new() };
    let holds = |part: &PlannedLayer<'_>| part.tree.as_ref().is_some_and(|tree| tree.get(&path).is_some());
    let parts = plan.numbers_of(model, &[]).into_iter();
    parts.filter(|&number| plan.layers.get(number).is_some_and(holds)).collect()
}

/// The part that the files make, counted by the tokenizer in the parts `built_on`. Redaction and another way of writing rows
/// can make them longer.
pub(super) fn part<'p>(
    layer: &DatasetLayer,
    rows: &LockedDataset,
    built_on: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Part {
    let mut ingredients = Ingredients::new("dataset", FORMAT);
    ingredients.add("preparation version", PREPARATION.to_string());
    // Where the tokenizer lies does not count, what it is does.
    let preparation = Preparation { tokenizer: None, ..layer.preparation.clone() };
    ingredients.add("preparation", format!("{preparation:?}"));
    if let Some(tokenizer) = &rows.tokenizer {
        ingredients.add("tokenizer", tokenizer.to_string());
    }
    for model in built_on {
        ingredients.add(format!("tokenizer in {}", model.name()), model.key.to_hex());
    }
    for (number, file) in rows.files.iter().enumerate() {
        ingredients.add(format!("file {number} ({})", file.name), file.sha256.to_string());
    }
    let fetched = !matches!(layer.source, DatasetSource::Path(_));
    let wanted = rows.files.iter().filter(|_| fetched).map(|file| Wanted { sha256: file.sha256, size: file.size });
    let size: u64 = rows.files.iter().map(|file| file.size).sum();
    Part { name: None, ingredients, sources: wanted.collect(), tree: None, estimate: size.saturating_mul(2) + OVERHEAD }
}
