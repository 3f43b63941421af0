//! Data sets, by the cards in their layers.

use super::{GatherError, built::files_of};
use crate::{
    check::facts::{DataCard, Dataset},
    layer::tree::{Node, TreePath},
    lock::Inputs,
    plan::{Plan, PlannedLayer},
    recipe::{LayerKind, Recipe},
    store::Store,
};
use serde_json::Value;

/// Where data sets lie in an image, and the card in each.
const DATA: &str = "data";
const CARD: &str = "card.json";
/// Largest card that is read, in bytes.
const MAX_CARD: u64 = 16 << 20;

/// The data sets of a recipe, with the cards of those that are built.
pub(super) fn datasets(recipe: &Recipe, plan: &Plan<'_>, store: &Store) -> Result<Vec<Dataset>, GatherError> {
    let layers = recipe.layers.values().filter_map(|layer| match &layer.kind {
        LayerKind::Dataset(dataset) => Some((layer, dataset)),
        _ => None,
    });
    let datasets = layers.map(|(layer, dataset)| {
        let planned = plan.layers.iter().find(|planned| planned.place.layer.name == layer.name);
        let name = layer.short_name().to_owned();
        let card = match planned {
            Some(planned) => card_of(&name, planned, store)?,
            None => None,
        };
        let licenses = match (&dataset.license, planned.map(|planned| &planned.locked.inputs)) {
            (Some(declared), _) => vec![declared.clone()],
            (None, Some(Inputs::Dataset(rows))) => {
                rows.repository.iter().flat_map(|repository| repository.licenses.clone()).collect()
            }
            (None, _) => Vec::new(),
        };
        Ok(Dataset { name, card, licenses, ..Dataset::default() })
    });
    datasets.collect()
}

fn card_of(name: &str, planned: &PlannedLayer<'_>, store: &Store) -> Result<Option<DataCard>, GatherError> {
    let Some(files) = files_of(planned, store)? else { return Ok(None) };
    let path = TreePath::new(format!("{DATA}/{name}/{CARD}")).ok();
    let Some(Node::File { content, .. }) = path.and_then(|path| files.get(&path)) else { return Ok(None) };
    if content.len() > MAX_CARD {
        return Ok(None);
    }
    let text = content.read().map_err(|source| GatherError::Layer { layer: planned.name(), source })?;
    Ok(serde_json::from_slice(&text).ok().and_then(|card: Value| read(&card)))
}

/// Reads a data card; `None` if it is none.
fn read(card: &Value) -> Option<DataCard> {
    let number = |pointer: &str| card.pointer(pointer).and_then(Value::as_u64);
    let word = |pointer: &str| card.pointer(pointer).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let mut found = DataCard {
        format: word("/schema/format")?,
        records: number("/examples/kept")?,
        left_out: number("/examples/bad")?,
        longest: number("/lengths/tokens/most"),
        ..DataCard::default()
    };
    found.duplicates = match (card.pointer("/duplicates/exact")?.as_bool()?, word("/duplicates/near")?.as_str()) {
        (true, "remove") => Some(0),
        (_, "together") => number("/examples/near_duplicates"),
        _ => None,
    };
    found.personal = match word("/pii/action")?.as_str() {
        "off" => None,
        "report" => Some(card.pointer("/pii/counts")?.as_object()?.values().filter_map(Value::as_u64).sum()),
        _ => Some(0),
    };
    for file in card.get("files")?.as_array()? {
        let part = file.get("split")?.as_str()?.to_ascii_lowercase();
        *found.splits.entry(part).or_default() += file.get("examples")?.as_u64()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card() -> Value {
        json!({
            "version": 1,
            "schema": {"format": "instruction"},
            "examples": {"rows": 120, "bad": 3, "exact_duplicates": 7, "near_duplicates": 0, "between_parts": 0, "kept": 110},
            "files": [
                {"name": "train-0.jsonl", "split": "train", "examples": 60},
                {"name": "train-1.jsonl", "split": "train", "examples": 39},
                {"name": "test.jsonl", "split": "test", "examples": 11},
            ],
            "duplicates": {"exact": true, "near": "remove"},
            "pii": {"action": "report", "counts": {"EMAIL": 2, "IBAN": 1}},
            "lengths": {"characters": {"most": 4000}, "tokens": {"most": 900}},
        })
    }

    #[test]
    fn a_card_says_what_is_still_in_the_data() {
        let found = read(&card()).unwrap();
        assert_eq!((found.format.as_str(), found.records, found.left_out), ("instruction", 110, 3));
        assert_eq!((found.duplicates, found.personal, found.longest), (Some(0), Some(3), Some(900)));
        assert_eq!(found.splits, [("train".to_owned(), 99), ("test".to_owned(), 11)].into());
        let mut redacted = card();
        redacted["pii"]["action"] = json!("redact");
        assert_eq!(read(&redacted).unwrap().personal, Some(0));
        redacted["pii"]["action"] = json!("off");
        redacted["duplicates"]["near"] = json!("off");
        assert_eq!((read(&redacted).unwrap().personal, read(&redacted).unwrap().duplicates), (None, None));
    }

    #[test]
    fn what_is_no_card_says_nothing() {
        for other in [json!([]), json!({}), json!({"schema": {"format": "text"}})] {
            assert_eq!(read(&other), None);
        }
    }
}
