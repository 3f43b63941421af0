//! Models, by the files that the lock pins or that lie in a directory.

use super::GatherError;
use crate::{
    check::{
        facts::{Model, ModelFinding, ModelPart},
        report::Status,
    },
    layer::model::PlacedModel,
    lock::{Inputs, Lock},
    model::{Finding, Level, ModelFiles, inspect},
    plan::PlanError,
    recipe::{LayerKind, ModelLayer, ModelSource, PlacedLayer, Recipe},
    source::model::LockedModel,
    store::Store,
};
use serde_json::Value;
use std::{fs::File, io::Read};

const CONFIG: &str = "config.json";
/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// The models of a recipe, looked into as far as their files are here.
pub(super) fn models(recipe: &Recipe, lock: &Lock, store: &Store) -> Result<Vec<Model>, GatherError> {
    let places = recipe.placed_layers();
    let models = places.iter().filter_map(|place| match &place.layer.kind {
        LayerKind::Model(layer) => Some((place, layer)),
        _ => None,
    });
    models.map(|(place, layer)| model(place, layer, lock, store)).collect()
}

fn model(place: &PlacedLayer<'_>, layer: &ModelLayer, lock: &Lock, store: &Store) -> Result<Model, GatherError> {
    let name = place.layer.short_name();
    let hub = layer.repo().map(|repo| repo.as_str().to_owned());
    let unknown = Model { name: name.to_owned(), hub, ..Model::default() };
    let rows = lock.layer(place).and_then(|row| match &row.inputs {
        Inputs::Model(rows) => Some(rows),
        _ => None,
    });
    let placed = match (rows, &layer.source) {
        (Some(rows), _) => PlacedModel::find(name, layer, rows, store),
        (None, ModelSource::Directory { .. }) => PlacedModel::in_directory(name, layer),
        (None, ModelSource::Hub(_)) => return Ok(unknown),
    };
    let failed = |source| PlanError::Model { layer: place.layer.name.clone(), source: Box::new(source) };
    let files = placed.map_err(failed)?.files;
    Ok(looked_into(unknown, layer, rows, &files))
}

fn looked_into(model: Model, layer: &ModelLayer, rows: Option<&LockedModel>, files: &ModelFiles) -> Model {
    let licenses = rows.map(LockedModel::licenses).unwrap_or_default();
    let inspection = inspect(files, licenses, &layer.allow_pickle);
    let bytes = files.iter().map(|(_, file)| file.size).fold(0, u64::saturating_add);
    Model {
        config: config(files),
        parameters: inspection.description.parameters,
        weight_bytes: Some(inspection.description.weight_bytes),
        bytes: Some(bytes),
        findings: Some(inspection.findings.iter().filter_map(finding).collect()),
        licenses: licenses.to_vec(),
        ..model
    }
}

fn config(files: &ModelFiles) -> Option<Value> {
    let file = files.get(CONFIG).filter(|file| file.size <= MAX_CONFIG && files.is_here(CONFIG))?;
    let mut text = Vec::new();
    File::open(&file.real).ok()?.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// A finding as the rules see it; `None` for what a rule of its own tells.
fn finding(found: &Finding) -> Option<ModelFinding> {
    if found.what.contains("names no licence") {
        return None;
    }
    let about =
        |word: &str| found.what.contains(word) || found.file.as_ref().is_some_and(|file| file.starts_with(word));
    let part = if about("tokenizer") {
        ModelPart::Tokenizer
    } else if about(CONFIG) {
        ModelPart::Configuration
    } else {
        ModelPart::Weights
    };
    let status = match found.level {
        Level::Fail => Status::Fail,
        Level::Unresolved => Status::Unresolved,
        Level::Warn => Status::Warn,
    };
    let what = found.file.as_ref().map_or_else(|| found.what.clone(), |file| format!("{file}: {}", found.what));
    Some(ModelFinding { part, status, what, remedy: found.remedy.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_go_to_the_part_that_they_are_about() {
        let part = |file: Option<&str>, what: &str| {
            let found = Finding {
                level: Level::Fail,
                file: file.map(str::to_owned),
                what: what.to_owned(),
                remedy: String::new(),
            };
            finding(&found).map(|found| found.part)
        };
        assert_eq!(part(None, "there is no tokenizer"), Some(ModelPart::Tokenizer));
        assert_eq!(part(Some("tokenizer.json"), "it is not here yet"), Some(ModelPart::Tokenizer));
        assert_eq!(part(None, "there is no config.json"), Some(ModelPart::Configuration));
        assert_eq!(part(Some("model.safetensors"), "it is cut short"), Some(ModelPart::Weights));
        assert_eq!(part(None, "the model's card names no licence"), None);
    }
}
