//! Models, by the files that the lock pins, that lie in a directory, or that a program made.
//!
//! What is known of a model must not depend on what the store was asked to forget: files whose sources are gone are read
//! from the layers that were built of them.

use super::{GatherError, built::index_of};
use crate::{
    check::{
        facts::{Model, ModelFinding, ModelPart},
        report::Status,
    },
    layer::{
        model::PlacedModel,
        tar::IndexKind,
        tree::{Content, Node},
    },
    lock::Inputs,
    model::{Finding, Level, ModelFile, ModelFiles, inspect},
    plan::{Plan, PlanError},
    recipe::{ImageKind, LayerKind, ModelLayer, ModelSource, PicklePolicy, PlacedLayer},
    source::model::LockedModel,
    store::Store,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::PathBuf,
};

const CONFIG: &str = "config.json";
/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// The models of a recipe, looked into as far as their files are here.
pub(super) fn models(plan: &Plan<'_>, store: &Store) -> Result<Vec<Model>, GatherError> {
    let recipe = plan.recipe;
    let images = recipe.images.iter().filter(|image| image.kind == ImageKind::Model);
    let own: BTreeSet<&str> = images.flat_map(|image| &image.layers).map(String::as_str).collect();
    let places = recipe.placed_layers();
    let models = places.iter().filter(|place| own.contains(place.layer.name.as_str()));
    let models = models.filter_map(|place| match &place.layer.kind {
        LayerKind::Model(layer) => Some(model(place, layer, plan, store)),
        LayerKind::Run(_) => Some(made(place, plan, store)),
        _ => None,
    });
    models.collect()
}

/// A model that a program makes, looked into once it was made.
fn made(place: &PlacedLayer<'_>, plan: &Plan<'_>, store: &Store) -> Result<Model, GatherError> {
    let name = place.layer.short_name();
    let model = Model { name: name.to_owned(), ..Model::default() };
    let planned = plan.layers.iter().find(|planned| planned.place.layer.name == place.layer.name);
    let built = match planned {
        Some(planned) => index_of(planned, store)?,
        None => None,
    };
    let Some((found, index)) = built else {
        let findings = [ModelPart::Weights, ModelPart::Tokenizer, ModelPart::Configuration].map(|part| ModelFinding {
            part,
            status: Status::Unresolved,
            what: "a program makes it, and has not yet".to_owned(),
            remedy: "build the recipe, and check it again".to_owned(),
        });
        return Ok(Model { findings: Some(findings.to_vec()), ..model });
    };
    let prefix = format!("models/{name}/");
    let files = index.entries.into_iter().filter_map(|entry| match entry.kind {
        IndexKind::File { offset, len } => {
            let path = entry.path.to_string().trim_start_matches('/').strip_prefix(&prefix)?.to_owned();
            Some((path, ModelFile { real: found.path.clone(), within: Some(found.offset + offset), size: len }))
        }
        _ => None,
    });
    Ok(looked_into(model, &PicklePolicy::Refuse, None, &files.collect()))
}

fn model(place: &PlacedLayer<'_>, layer: &ModelLayer, plan: &Plan<'_>, store: &Store) -> Result<Model, GatherError> {
    let name = place.layer.short_name();
    let hub = layer.repo().map(|repo| repo.as_str().to_owned());
    let unknown = Model { name: name.to_owned(), hub, ..Model::default() };
    let rows = plan.lock.layer(place).and_then(|row| match &row.inputs {
        Inputs::Model(rows) => Some(rows),
        _ => None,
    });
    let placed = match (rows, &layer.source) {
        (Some(rows), _) => PlacedModel::find(name, layer, rows, store),
        (None, ModelSource::Directory { .. }) => PlacedModel::in_directory(name, layer),
        (None, ModelSource::Hub(_)) => return Ok(unknown),
    };
    let failed = |source| PlanError::Model { layer: place.layer.name.clone(), source: Box::new(source) };
    let files = found_again(placed.map_err(failed)?.files, place, plan, store)?;
    Ok(looked_into(unknown, &layer.allow_pickle, rows, &files))
}

/// The files, those that are not here by themselves within the layers that hold them.
fn found_again(
    files: ModelFiles,
    place: &PlacedLayer<'_>,
    plan: &Plan<'_>,
    store: &Store,
) -> Result<ModelFiles, GatherError> {
    if files.iter().all(|(_, file)| file.is_here()) {
        return Ok(files);
    }
    let laid = laid_down(place, plan, store)?;
    let found = |file: ModelFile| if file.is_here() { file } else { laid.get(&file.real).cloned().unwrap_or(file) };
    Ok(files.into_iter().map(|(path, file)| (path, found(file))).collect())
}

/// The files in the built layers of a model, by where they came from.
fn laid_down(
    place: &PlacedLayer<'_>,
    plan: &Plan<'_>,
    store: &Store,
) -> Result<BTreeMap<PathBuf, ModelFile>, GatherError> {
    let mut laid = BTreeMap::new();
    for planned in plan.layers.iter().filter(|planned| planned.place == *place) {
        let (Some(tree), Some((found, index))) = (&planned.tree, index_of(planned, store)?) else { continue };
        for entry in index.entries {
            // Of several names, that of the layer's file need not be that of the tree's.
            let node = match tree.get(&entry.path) {
                Some(Node::HardLink { target }) => tree.get(target),
                node => node,
            };
            if let IndexKind::File { offset, len } = entry.kind
                && let Some(Node::File { content: Content::Path { path, .. }, .. }) = node
            {
                let file = ModelFile { real: found.path.clone(), within: Some(found.offset + offset), size: len };
                laid.insert(path.to_path_buf(), file);
            }
        }
    }
    Ok(laid)
}

fn looked_into(model: Model, pickles: &PicklePolicy, rows: Option<&LockedModel>, files: &ModelFiles) -> Model {
    let licenses = rows.map(LockedModel::licenses).unwrap_or_default();
    let inspection = inspect(files, licenses, pickles);
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
    file.open().ok()?.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
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
