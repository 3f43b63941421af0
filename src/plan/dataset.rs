//! A data set: a layer of one part, prepared from its files.

use super::{
    Ingredients,
    part::{Part, Wanted},
};
use crate::{
    recipe::{DatasetLayer, DatasetSource, Preparation},
    source::dataset::LockedDataset,
};
use gap_data::PREPARATION;

/// Raised when the builder gives other bytes for the same ingredients, whatever prepares the data.
const FORMAT: u64 = 1;
/// What the card and the directory take.
const OVERHEAD: u64 = 1 << 20;

/// The part that the files make. Redaction and another way of writing rows can make them longer.
pub(super) fn part(layer: &DatasetLayer, rows: &LockedDataset) -> Part {
    let mut ingredients = Ingredients::new("dataset", FORMAT);
    ingredients.add("preparation version", PREPARATION.to_string());
    // Where the tokenizer lies does not count, what it is does.
    let preparation = Preparation { tokenizer: None, ..layer.preparation.clone() };
    ingredients.add("preparation", format!("{preparation:?}"));
    if let Some(tokenizer) = &rows.tokenizer {
        ingredients.add("tokenizer", tokenizer.to_string());
    }
    for (number, file) in rows.files.iter().enumerate() {
        ingredients.add(format!("file {number} ({})", file.name), file.sha256.to_string());
    }
    let fetched = !matches!(layer.source, DatasetSource::Path(_));
    let wanted = rows.files.iter().filter(|_| fetched).map(|file| Wanted { sha256: file.sha256, size: file.size });
    let size: u64 = rows.files.iter().map(|file| file.size).sum();
    Part { name: None, ingredients, sources: wanted.collect(), tree: None, estimate: size.saturating_mul(2) + OVERHEAD }
}
