//! Models, by the files that the lock pins, that lie in a directory, or that a program made.

use super::{GatherError, built::files_of};
use crate::{
    check::{
        facts::{Model, ModelFinding, ModelPart},
        report::Status,
    },
    layer::{
        model::PlacedModel,
        tree::{Content, Node, Tree},
    },
    lock::{Inputs, Lock},
    model::{Finding, Level, ModelFile, ModelFiles, inspect},
    plan::{Plan, PlanError, PlannedLayer},
    recipe::{ImageKind, LayerKind, ModelLayer, ModelSource, PicklePolicy, PlacedLayer},
    source::model::LockedModel,
    store::Store,
};
use gap_format::ReadAt;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

const CONFIG: &str = "config.json";
/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;
/// How much of a file is copied at once, in bytes.
const CHUNK: usize = 1 << 20;

/// The models of a recipe, looked into as far as their files are here.
pub(super) fn models(plan: &Plan<'_>, store: &Store) -> Result<Vec<Model>, GatherError> {
    let (recipe, lock) = (plan.recipe, plan.lock);
    let images = recipe.images.iter().filter(|image| image.kind == ImageKind::Model);
    let own: BTreeSet<&str> = images.flat_map(|image| &image.layers).map(String::as_str).collect();
    let places = recipe.placed_layers();
    let models = places.iter().filter(|place| own.contains(place.layer.name.as_str()));
    let models = models.filter_map(|place| match &place.layer.kind {
        LayerKind::Model(layer) => Some(model(place, layer, lock, store)),
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
    let files = match planned {
        Some(planned) => files_of(planned, store)?.map(|files| (planned, files)),
        None => None,
    };
    let Some((planned, files)) = files else {
        let findings = [ModelPart::Weights, ModelPart::Tokenizer, ModelPart::Configuration].map(|part| ModelFinding {
            part,
            status: Status::Unresolved,
            what: "a program makes it, and has not yet".to_owned(),
            remedy: "build the recipe, and check it again".to_owned(),
        });
        return Ok(Model { findings: Some(findings.to_vec()), ..model });
    };
    let failed = |source| GatherError::Layer { layer: PlannedLayer::name(planned), source };
    let dir = tempfile::tempdir_in(store.session_dir()).map_err(failed)?;
    let files = unpacked(&files, &format!("models/{name}/"), dir.path()).map_err(failed)?;
    Ok(looked_into(model, &PicklePolicy::Refuse, None, &files))
}

/// The files below `prefix`, written into `dir`.
fn unpacked(files: &Tree, prefix: &str, dir: &Path) -> io::Result<ModelFiles> {
    let within = files.iter().filter_map(|(path, node)| match node {
        Node::File { content, .. } => {
            Some((path.to_string().trim_start_matches('/').strip_prefix(prefix)?.to_owned(), content))
        }
        _ => None,
    });
    let copied = within.enumerate().map(|(number, (path, content))| {
        let real = dir.join(number.to_string());
        copy(content, &real)?;
        Ok((path, ModelFile { real, size: content.len() }))
    });
    copied.collect()
}

fn copy(content: &Content, to: &Path) -> io::Result<()> {
    let (from, mut file) = (content.open()?, fs::File::create(to)?);
    let mut chunk = vec![0; CHUNK];
    for at in (0..content.len()).step_by(CHUNK) {
        chunk.truncate(usize::try_from(content.len() - at).map_or(CHUNK, |rest| rest.min(CHUNK)));
        from.read_exact_at(&mut chunk, at)?;
        io::Write::write_all(&mut file, &chunk)?;
    }
    Ok(())
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
    Ok(looked_into(unknown, &layer.allow_pickle, rows, &files))
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
