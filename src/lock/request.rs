//! What of a recipe bears on the lock: the requests, each as a hash. Names, versions and serials of the appliance, and
//! which mirror serves the packages, do not.

use crate::{
    recipe::{
        Arch, CargoLayer, DatasetLayer, DatasetSource, DebianLayer, FilesLayer, HubRepository, LayerKind, ModelLayer,
        ModelSource, PackageRequest, PlacedLayer, Provided, RepoName, RunLayer, TokenizerSource, WheelsLayer,
    },
    store::KeyBuilder,
};
use gap_format::Digest;

/// Raised when other fields of a layer begin to bear on what it resolves to.
const FORMAT: u64 = 1;

/// The hash of what the recipe asks for in this place.
pub fn request(place: &PlacedLayer<'_>, arch: Arch) -> Digest {
    let mut key = KeyBuilder::new(place.layer.kind.name(), FORMAT);
    key.text("arch", arch.name()).list("below", &place.below);
    match &place.layer.kind {
        LayerKind::Debian(layer) => debian(layer, &mut key),
        LayerKind::Cargo(layer) => cargo(layer, &mut key),
        LayerKind::Files(layer) => files(layer, &mut key),
        LayerKind::Run(layer) => run(layer, &mut key),
        LayerKind::Wheels(layer) => wheels(layer, &mut key),
        LayerKind::Model(layer) => model(layer, &mut key),
        LayerKind::Dataset(layer) => dataset(layer, &mut key),
    }
    key.finish()
}

fn debian(layer: &DebianLayer, key: &mut KeyBuilder) {
    let packages = layer.packages.iter().map(PackageRequest::to_string);
    key.text("suite", &layer.suite)
        .list("components", &layer.components)
        .list("packages", packages)
        .list("assume", &layer.assume)
        .flag("essential", layer.essential)
        .flag("recommends", layer.recommends)
        .flag("dependencies", layer.dependencies);
}

fn cargo(layer: &CargoLayer, key: &mut KeyBuilder) {
    key.text("package", &layer.package).text("bin", &layer.bin).list("features", &layer.features);
}

fn files(layer: &FilesLayer, key: &mut KeyBuilder) {
    for item in &layer.items {
        key.text("path", &item.path).text("to", &item.to);
        key.list("mode", item.mode.map(u32::to_le_bytes));
    }
}

fn run(layer: &RunLayer, key: &mut KeyBuilder) {
    let env = layer.env.iter().flat_map(|(name, value)| [name, value]);
    key.list("on", &layer.on).list("command", &layer.command).list("env", env);
    key.text("output", &layer.output.to_string()).text("to", &layer.to.to_string());
}

fn wheels(layer: &WheelsLayer, key: &mut KeyBuilder) {
    key.list("requirements", &layer.requirements)
        .list("constraints", &layer.constraints)
        .list("python", layer.python.as_ref())
        .list("index", layer.index.as_ref())
        .list("extra indexes", &layer.extra_indexes);
    // Left out where there are none, so that other locks stay as they are.
    if !layer.sdists.projects.is_empty() {
        key.list("sdists", &layer.sdists.projects)
            .list("built on", &layer.sdists.on)
            .list("build requirements", &layer.sdists.requires);
    }
    match &layer.provided {
        Provided::All => key.flag("all provided", true),
        Provided::Named(names) => key.list("provided", names),
    };
}

fn model(layer: &ModelLayer, key: &mut KeyBuilder) {
    match &layer.source {
        ModelSource::Hub(hub) => repository(hub, key),
        ModelSource::Directory { base: _, path, name } => {
            key.text("path", path).list("name", name.as_ref().map(RepoName::as_str))
        }
    };
    key.list("include", &layer.include).list("exclude", &layer.exclude);
}

/// Which hub serves it does not count.
fn repository<'k>(hub: &HubRepository, key: &'k mut KeyBuilder) -> &'k mut KeyBuilder {
    key.text("repo", hub.repo.as_str()).text("revision", &hub.revision)
}

fn dataset(layer: &DatasetLayer, key: &mut KeyBuilder) {
    match &layer.source {
        DatasetSource::Path(beside) => key.text("path", &beside.path),
        DatasetSource::Url { url: _, sha256 } => key.text("sha256", &sha256.to_string()),
        DatasetSource::Hub { repository: hub, include, exclude } => {
            repository(hub, key).list("include", include).list("exclude", exclude)
        }
    };
    // Which tokenizer of a model of the recipe is in the rows of the model.
    let beside = match &layer.preparation.tokenizer {
        Some(TokenizerSource::Beside(beside)) => Some(&beside.path),
        Some(TokenizerSource::Model(_)) | None => None,
    };
    key.list("tokenizer", beside);
}
