//! From TOML values to the types of a recipe.

mod dataset;
mod hub;
mod job;
mod layer;
mod model;
mod policy;
mod run;
mod step;
mod target;
mod trial;
mod wheels;

use super::{
    Appliance, Arch, Boot, Image, ImageConfig, ImageKind, Layer, LayerKind, Recipe, RecipeErrors, SecretPolicy, check,
    definition,
    name::{self, Rule},
    problem::{At, Problems, SourceFile, suggestion},
    section::{Placed, Section},
    value::{Kind, Value, parse},
};
use gap_format::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};
use toml::value::Datetime;

/// What the names of the layers begin with that models and data sets make; no other layer has a `/` in its name.
pub(super) const MODELS: &str = "model/";
pub(super) const DATASETS: &str = "dataset/";
/// Longest recipe or definition accepted, in bytes.
const MAX_LEN: u64 = 1024 * 1024;

/// Reads, decodes and checks a recipe.
pub(super) fn load(path: &Path) -> Result<Recipe, RecipeErrors> {
    let file = read_source(path).map_err(|source| RecipeErrors::Unreadable { path: path.to_owned(), source })?;
    decode(&file)
}

/// Decodes and checks a recipe that was read.
pub(super) fn decode(file: &Arc<SourceFile>) -> Result<Recipe, RecipeErrors> {
    let problems = Problems::default();
    let recipe = parse(file, &problems).and_then(|root| {
        let draft = recipe(file, &root, &problems)?;
        check::check(&draft, &problems);
        Some(draft.recipe)
    });
    match recipe {
        Some(recipe) if problems.is_empty() => Ok(recipe),
        _ => Err(RecipeErrors::Invalid { path: file.path.clone(), problems: problems.into_sorted() }),
    }
}

/// Reads a TOML file of bounded length.
pub(super) fn read_source(path: &Path) -> io::Result<Arc<SourceFile>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(SourceFile::new(path, text))
}

/// A recipe whose parts are decoded but not yet checked against each other, and where its parts were written.
pub(super) struct Draft {
    pub recipe: Recipe,
    /// Where each layer is defined.
    pub layers: BTreeMap<String, At>,
    /// Every mention of a layer, and what mentions it.
    pub mentions: Vec<Mention>,
    /// Where `boot = true` is written.
    pub boots: Vec<At>,
    /// Where `[boot]` is.
    pub boot: Option<At>,
}

/// A place that names a layer.
pub(super) struct Mention {
    pub layer: String,
    pub at: At,
    /// The layer that is built on it, if a layer names it for that.
    pub by_layer: Option<String>,
}

fn recipe(file: &SourceFile, root: &Value, problems: &Problems) -> Option<Draft> {
    let mut top = Section::open("the recipe", root, problems)?;
    let appliance = match top.any("appliance") {
        Some(value) => appliance(value, problems),
        None => {
            let help = "add an `[appliance]` table with `name`, `version`, `serial` and `arch`";
            problems.add_with_help(&At { span: 0..0, ..root.at.clone() }, "the recipe has no `[appliance]`", help);
            None
        }
    };
    let mut draft = Draft {
        recipe: Recipe {
            path: file.path.clone(),
            appliance: appliance.unwrap_or_else(placeholder),
            images: Vec::new(),
            boot: None,
            layers: BTreeMap::new(),
            digest: Digest::of(file.text().as_bytes()),
            definitions: BTreeSet::new(),
            target: None,
            jobs: Vec::new(),
            steps: Vec::new(),
            licenses: None,
            secrets: SecretPolicy::default(),
            acceptance: None,
            tests: Vec::new(),
        },
        layers: BTreeMap::new(),
        mentions: Vec::new(),
        boots: Vec::new(),
        boot: None,
    };
    let defaults = top.any("debian").map(|value| layer::debian_defaults(value, problems)).unwrap_or_default();
    for (key, value) in tables(&mut top, "image", problems) {
        if checked(&format!("the image name `{}`", key.value), key.value, key.at, name::oci_name, problems).is_some() {
            draft.recipe.images.extend(image(key.value, value, &mut draft.boots, &mut draft.mentions, problems));
        }
    }
    for (key, value) in tables(&mut top, "layer", problems) {
        draft.layers.insert(key.value.to_owned(), key.at.clone());
        if checked(&format!("the layer name `{}`", key.value), key.value, key.at, name::oci_name, problems).is_some() {
            let body = definition::expand(key.value, value, &mut draft.recipe.definitions, problems);
            let layer =
                body.and_then(|body| layer::layer(key.value, key.at, &body, &defaults, &mut draft.mentions, problems));
            draft.recipe.layers.extend(layer.map(|layer| (key.value.to_owned(), layer)));
        }
    }
    for (key, value) in tables(&mut top, "model", problems) {
        let decoded = model::model(key.value, value, &mut draft.mentions, problems);
        carried(ImageKind::Model, &key, decoded, &mut draft, problems);
    }
    for (key, value) in tables(&mut top, "dataset", problems) {
        let decoded = dataset::dataset(key.value, value, &mut draft.mentions, problems).map(LayerKind::Dataset);
        carried(ImageKind::Dataset, &key, decoded, &mut draft, problems);
    }
    if draft.recipe.images.is_empty() && problems.is_empty() {
        let help = "add `[image.NAME]` with `layers = […]`, or a model or a data set";
        problems.add_with_help(&At { span: 0..0, ..root.at.clone() }, "the recipe makes no image", help);
    }
    work(&mut top, &mut draft, problems);
    policies(&mut top, &mut draft, problems);
    if let Some(value) = top.any("test") {
        draft.recipe.tests = trial::tests(value, &draft.recipe.images, &mut draft.mentions, problems);
    }
    if let Some(value) = top.any("boot") {
        draft.boot = Some(value.at.clone());
        draft.recipe.boot = boot(value, &mut draft.mentions, problems);
    }
    top.finish();
    Some(draft)
}

/// The machine, and what is run on it.
fn work<'t>(top: &mut Section<'t>, draft: &mut Draft, problems: &'t Problems) {
    let (recipe, mentions) = (&mut draft.recipe, &mut draft.mentions);
    recipe.target = top.any("target").and_then(|value| target::target(value, problems));
    for (key, value) in tables(top, "job", problems) {
        if checked(&format!("the job name `{}`", key.value), key.value, key.at, name::oci_name, problems).is_some() {
            recipe.jobs.extend(job::job(key.value, value, &recipe.images, mentions, problems));
        }
    }
    let mut steps = step::Steps::default();
    for (key, value) in tables(top, "step", problems) {
        if checked(&format!("the step name `{}`", key.value), key.value, key.at, name::step, problems).is_some() {
            steps.add(key.value, value, &recipe.images, problems);
        }
    }
    steps.check(problems);
    recipe.steps = steps.done;
}

/// What is allowed and demanded.
fn policies(top: &mut Section<'_>, draft: &mut Draft, problems: &Problems) {
    let (recipe, mentions) = (&mut draft.recipe, &mut draft.mentions);
    recipe.licenses = top.any("licenses").and_then(|value| policy::licenses(value, problems));
    recipe.secrets = top.any("secrets").and_then(|value| policy::secrets(value, problems)).unwrap_or_default();
    recipe.acceptance = top.any("acceptance").and_then(|value| policy::acceptance(value, mentions, problems));
}

/// Adds a model or a data set: a layer, and an image of that layer alone.
fn carried(
    kind: ImageKind,
    key: &Placed<'_, &str>,
    decoded: Option<LayerKind>,
    draft: &mut Draft,
    problems: &Problems,
) {
    let name = key.value;
    let (what, layer) = match kind {
        ImageKind::Dataset => ("data set", format!("{DATASETS}{name}")),
        ImageKind::Model | ImageKind::System => ("model", format!("{MODELS}{name}")),
    };
    draft.layers.insert(layer.clone(), key.at.clone());
    if checked(&format!("the {what} name `{name}`"), name, key.at, name::oci_name, problems).is_none() {
        return;
    }
    if draft.recipe.images.iter().any(|image| image.name == name) {
        let help = "models, data sets and images share one list of names in the artifact";
        problems.add_with_help(key.at, format!("there is an image `{name}` already"), help);
    }
    let image =
        Image { name: name.to_owned(), kind, boot: false, layers: vec![layer.clone()], config: ImageConfig::default() };
    draft.recipe.images.push(image);
    draft.mentions.push(Mention { layer: layer.clone(), at: key.at.clone(), by_layer: None });
    let line = key.at.line_column().0;
    draft.recipe.layers.extend(decoded.map(|kind| (layer.clone(), Layer { name: layer, kind, line })));
}

/// The layers of the models and data sets that `models` and `datasets` name, each once.
fn carried_layers(section: &mut Section<'_>, by_layer: &Option<String>, mentions: &mut Vec<Mention>) -> Vec<String> {
    let mut layers = Vec::new();
    for (key, prefix) in [("models", MODELS), ("datasets", DATASETS)] {
        for member in section.strings(key) {
            let layer = format!("{prefix}{}", member.value);
            mentions.push(Mention { layer: layer.clone(), at: member.at.clone(), by_layer: by_layer.clone() });
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
    }
    layers
}

/// Stands in for an appliance that could not be decoded, so that the rest can still be checked; never returned.
fn placeholder() -> Appliance {
    Appliance {
        name: String::new(),
        version: String::new(),
        serial: 1,
        rollback_to: 1,
        arch: Arch::X86_64,
        trust: None,
        expires: None,
    }
}

/// The sub-tables of `[KEY.NAME]`.
fn tables<'t>(
    top: &mut Section<'t>,
    key: &'static str,
    problems: &'t Problems,
) -> Vec<(Placed<'t, &'t str>, &'t Value)> {
    let Some(value) = top.any(key) else { return Vec::new() };
    let Some(section) = Section::open(format!("`[{key}]`"), value, problems) else { return Vec::new() };
    section.entries().map(|(key, value)| (Placed { value: key.name.as_str(), at: &key.at }, value)).collect()
}

/// Checks a text by a rule; notes what is allowed if it breaks it.
pub(super) fn checked<'t>(what: &str, text: &'t str, at: &At, rule: Rule, problems: &Problems) -> Option<&'t str> {
    match rule(text) {
        Ok(()) => Some(text),
        Err(allowed) => {
            problems.add_with_help(at, format!("{what} is not allowed"), format!("allowed: {allowed}"));
            None
        }
    }
}

fn appliance(value: &Value, problems: &Problems) -> Option<Appliance> {
    let mut section = Section::open("`[appliance]`", value, problems)?;
    section.required("name", "\"my-appliance\"");
    let name = section
        .string("name")
        .and_then(|name| checked(&format!("the name `{}`", name.value), name.value, name.at, name::oci_name, problems));
    section.required("version", "\"0.1.0\"");
    let version = section.string("version").and_then(|version| {
        checked(&format!("the version `{}`", version.value), version.value, version.at, name::version, problems)
    });
    section.required("serial", "1");
    let serial = section.integer("serial").and_then(|serial| at_least_one("serial", &serial, problems));
    let rollback_to = section.integer("rollback_to").and_then(|floor| {
        let value = at_least_one("rollback_to", &floor, problems)?;
        if serial.is_some_and(|serial| value > serial) {
            let help = "it names the oldest release that may still be booted, so it is at most `serial`";
            problems.add_with_help(floor.at, "`rollback_to` is above `serial`", help);
        }
        Some(value)
    });
    section.required("arch", "\"x86_64\"");
    let arch = section.string("arch").and_then(|arch| arch_named(&arch, problems));
    let trust = section.string("trust").and_then(|trust| {
        let path = checked("the path of `trust`", trust.value, trust.at, name::relative_path, problems)?;
        Some(trust.at.file.dir().join(path))
    });
    let expires = section.any("expires").and_then(|value| instant("expires", value, problems));
    section.finish();
    Some(Appliance {
        name: name?.to_owned(),
        version: version?.to_owned(),
        serial: serial?,
        rollback_to: rollback_to.or(serial)?,
        arch: arch?,
        trust,
        expires,
    })
}

fn at_least_one(key: &str, number: &Placed<'_, i64>, problems: &Problems) -> Option<u64> {
    match u64::try_from(number.value) {
        Ok(value) if value > 0 => Some(value),
        _ => {
            let help = "serials start at 1 and rise with every release";
            problems.add_with_help(number.at, format!("`{key}` is {}, but must be at least 1", number.value), help);
            None
        }
    }
}

fn arch_named(arch: &Placed<'_, &str>, problems: &Problems) -> Option<Arch> {
    let found = Arch::ALL.into_iter().find(|known| known.name() == arch.value);
    if found.is_none() {
        let names: Vec<&str> = Arch::ALL.iter().map(|arch| arch.name()).collect();
        let help = match arch.value {
            "amd64" | "x86-64" => "Debian's amd64 is called `x86_64` here".to_owned(),
            other => suggestion(other, &names),
        };
        problems.add_with_help(arch.at, format!("there is no architecture `{}`", arch.value), help);
    }
    found
}

fn instant(key: &str, value: &Value, problems: &Problems) -> Option<i64> {
    let seconds = match &value.kind {
        Kind::Datetime(datetime) => seconds_of(datetime),
        _ => None,
    };
    if seconds.is_none() {
        let help = format!("write it without quotes, with a time zone: `{key} = 2027-01-01T00:00:00Z`");
        problems.add_with_help(&value.at, format!("`{key}` should be a date with time and time zone"), help);
    }
    seconds
}

/// Seconds since 1970 of a date that has a time and a time zone.
fn seconds_of(datetime: &Datetime) -> Option<i64> {
    datetime.offset?;
    datetime.to_string().parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn image(
    image: &str,
    value: &Value,
    boots: &mut Vec<At>,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<Image> {
    let mut section = Section::open(format!("the image `{image}`"), value, problems)?;
    section.required("layers", "[\"base\"]");
    let listed = section.list("layers");
    let named = section.strings("layers");
    if let Some(list) = listed.filter(|list| list.value.is_empty()) {
        problems.add_with_help(list.at, format!("the image `{image}` has no layers"), "name at least one");
    }
    let mut layers: Vec<String> = Vec::new();
    for layer in &named {
        if layers.iter().any(|earlier| earlier == layer.value) {
            problems.add(layer.at, format!("the layer `{}` is in this image twice", layer.value));
        }
        layers.push(layer.value.to_owned());
        mentions.push(Mention { layer: layer.value.to_owned(), at: layer.at.clone(), by_layer: None });
    }
    layers.extend(carried_layers(&mut section, &None, mentions));
    let boot = section.boolean("boot", false);
    if boot && let Some(value) = section.any("boot") {
        boots.push(value.at.clone());
    }
    let config = section.any("config").and_then(|value| image_config(image, value, problems)).unwrap_or_default();
    section.finish();
    Some(Image { name: image.to_owned(), kind: ImageKind::System, boot, layers, config })
}

fn image_config(image: &str, value: &Value, problems: &Problems) -> Option<ImageConfig> {
    let mut section = Section::open(format!("the configuration of the image `{image}`"), value, problems)?;
    let entrypoint = texts(&section.strings("entrypoint"), problems);
    let cmd = texts(&section.strings("cmd"), problems);
    let env_table = section.string_table("env");
    for (name, value) in &env_table {
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.add(value.at, format!("`{}` cannot be the name of a variable", name.escape_debug()));
        }
    }
    let labels = section.string_table("labels");
    let workdir = section.string("workdir");
    if let Some(dir) = workdir.as_ref().filter(|dir| !dir.value.starts_with('/')) {
        problems.add_with_help(dir.at, "`workdir` is not absolute", format!("write `/{}`", dir.value));
    }
    let user = section.string("user");
    section.finish();
    let owned = |table: &BTreeMap<String, Placed<'_, &str>>| -> BTreeMap<String, String> {
        table.iter().filter_map(|(key, value)| Some((key.clone(), text(value, problems)?))).collect()
    };
    Some(ImageConfig {
        entrypoint,
        cmd,
        env: owned(&env_table),
        workdir: workdir.and_then(|dir| text(&dir, problems)),
        user: user.and_then(|user| text(&user, problems)),
        labels: owned(&labels),
    })
}

/// A text for the kernel: without NUL.
fn text(value: &Placed<'_, &str>, problems: &Problems) -> Option<String> {
    if value.value.contains('\0') {
        problems.add(value.at, "a NUL character cannot be passed to a program");
        return None;
    }
    Some(value.value.to_owned())
}

fn texts(values: &[Placed<'_, &str>], problems: &Problems) -> Vec<String> {
    values.iter().filter_map(|value| text(value, problems)).collect()
}

fn boot(value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<Boot> {
    let mut section = Section::open("`[boot]`", value, problems)?;
    section.required("stub", "\"LAYER\"");
    let stub = section.string("stub");
    section.required("init", "\"LAYER\"");
    let init = section.string("init");
    for layer in [&stub, &init].into_iter().flatten() {
        mentions.push(Mention { layer: layer.value.to_owned(), at: layer.at.clone(), by_layer: None });
    }
    let modules = section.strings("modules").into_iter().filter_map(|module| {
        let what = format!("the kernel module `{}`", module.value.escape_debug());
        checked(&what, module.value, module.at, name::identifier, problems).map(str::to_owned)
    });
    let modules = modules.collect();
    let cmdline = section.string("cmdline");
    if let Some(line) = &cmdline
        && let Err(word) = name::cmdline(line.value)
    {
        let help = "words that say what is verified, mounted or started are set by the release itself; no control \
                    characters and no double quotes";
        problems.add_with_help(line.at, format!("`{word}` may not be on the kernel's command line"), help);
    }
    if let Some(line) = cmdline.as_ref().filter(|line| line.value.len() > 1024) {
        problems.add(line.at, "`cmdline` is longer than 1024 bytes");
    }
    section.finish();
    let cmdline = cmdline.map(|line| line.value.to_owned()).unwrap_or_default();
    Some(Boot { stub: stub?.value.to_owned(), init: init?.value.to_owned(), modules, cmdline })
}
