//! Decoding of `[job.NAME]`, and of what jobs and steps have in common.

use super::{DATASETS, MODELS, Mention, checked, target::number};
use crate::recipe::{
    Adapter, ConfigPath, Engine, Image, ImageKind, Job, Method, Optimizer, Precision, Serving, Sharding, Trainer,
    Training, Work, name,
    problem::{At, Problems, list, nearest, suggestion},
    section::{Placed, Section},
    value::{Kind, Value},
};
use gap_handover::site::{EndpointName, MAX_ENDPOINTS};
use std::{collections::BTreeMap, num::NonZeroU16};

/// Rank of adapters where none is given.
const DEFAULT_RANK: u64 = 16;

/// Decodes the job `name`, which runs in one of `images`.
pub(super) fn job(
    name: &str,
    value: &Value,
    images: &[Image],
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<Job> {
    let mut section = Section::open(format!("the job `{name}`"), value, problems)?;
    let image = image(&mut section, images, problems);
    let train = section.any("train");
    let serve = section.any("serve");
    let work = match (train, serve) {
        (Some(value), None) => training(name, value, mentions, problems).map(Work::Train),
        (None, Some(value)) => serving(name, value, mentions, problems).map(Work::Serve),
        (None, None) => Some(Work::Other),
        (Some(_), Some(second)) => {
            let message = format!("the job `{name}` has both `train` and `serve`");
            problems.add_with_help(&second.at, message, "a job does one thing: make two jobs of it");
            None
        }
    };
    let run = arguments(&mut section);
    let configs = configs(&mut section, problems);
    let gpus = section.integer("gpus").and_then(|gpus| number("gpus", &gpus, 0, problems));
    let endpoints = endpoints(&mut section, problems);
    section.finish();
    Some(Job { name: name.to_owned(), image: image?, work: work?, run, configs, gpus, endpoints })
}

/// The endpoints of the site that a job is to reach, with the port of its loopback for each.
fn endpoints(section: &mut Section<'_>, problems: &Problems) -> BTreeMap<EndpointName, NonZeroU16> {
    let Some(value) = section.any("endpoints") else { return BTreeMap::new() };
    let Some(table) = Section::open("`endpoints`", value, problems) else { return BTreeMap::new() };
    let mut endpoints = BTreeMap::new();
    for (key, value) in table.entries() {
        let name = key.name.parse::<EndpointName>();
        let port = match value.kind {
            Kind::Integer(port) => u16::try_from(port).ok().and_then(NonZeroU16::new),
            _ => None,
        };
        match (name, port) {
            (Err(reason), _) => problems.add_with_help(&key.at, reason, "as `tracking = 5000`"),
            (_, None) => {
                let help = "a port, 1 to 65535, on which the job finds it at 127.0.0.1";
                problems.add_with_help(&value.at, format!("`{}` should be a port", key.name), help);
            }
            (Ok(_), Some(port)) if endpoints.values().any(|other| *other == port) => {
                problems.add_with_help(&value.at, format!("the port {port} is taken"), "give each endpoint its own");
            }
            (Ok(name), Some(port)) => drop(endpoints.insert(name, port)),
        }
    }
    if endpoints.len() > MAX_ENDPOINTS {
        problems.add_with_help(&value.at, "there are too many endpoints", format!("at most {MAX_ENDPOINTS}"));
    }
    endpoints
}

/// The name of a model or data set that must be in the recipe.
pub(super) fn carried(prefix: &str, name: &Placed<'_, &str>, mentions: &mut Vec<Mention>) -> String {
    mentions.push(Mention { layer: format!("{prefix}{}", name.value), at: name.at.clone(), by_layer: None });
    name.value.to_owned()
}

/// The image that a job or step runs in.
pub(super) fn image(section: &mut Section<'_>, images: &[Image], problems: &Problems) -> Option<String> {
    section.required("image", "\"IMAGE\"");
    let image = section.string("image")?;
    let systems = images.iter().filter(|image| image.kind == ImageKind::System);
    let names: Vec<&str> = systems.map(|image| image.name.as_str()).collect();
    if !names.contains(&image.value) {
        let message = format!("there is no image `{}`", image.value.escape_debug());
        problems.add_with_help(image.at, message, suggestion(image.value, &names));
        return None;
    }
    Some(image.value.to_owned())
}

/// Program and arguments.
pub(super) fn arguments(section: &mut Section<'_>) -> Vec<String> {
    section.strings("run").iter().map(|text| text.value.to_owned()).collect()
}

/// The configuration files of a job or step.
pub(super) fn configs(section: &mut Section<'_>, problems: &Problems) -> Vec<ConfigPath> {
    let paths = section.strings("configs").into_iter().filter_map(|path| {
        let shown = format!("the path `{}`", path.value.escape_debug());
        let written = checked(&shown, path.value, path.at, name::confined_path, problems)?;
        let known = [".json", ".yaml", ".yml", ".toml"].iter().any(|suffix| written.ends_with(suffix));
        if !known {
            let help = "a configuration is a `.json`, `.yaml`, `.yml` or `.toml` file";
            problems.add_with_help(path.at, format!("`{}` cannot be read", written.escape_debug()), help);
        }
        known.then(|| ConfigPath { shown: written.to_owned(), path: path.at.file.dir().join(written) })
    });
    paths.collect()
}

fn training(job: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<Training> {
    let mut section = Section::open(format!("`train` of the job `{job}`"), value, problems)?;
    section.required("model", "\"MODEL\"");
    let model = section.string("model").map(|model| carried(MODELS, &model, mentions));
    let datasets = section.strings("datasets").iter().map(|name| carried(DATASETS, name, mentions)).collect();
    let trainer = chosen(&mut section, "trainer", Trainer::ALL, Trainer::name, problems);
    let method = method(&mut section, problems);
    let precision = chosen(&mut section, "precision", Precision::ALL, Precision::name, problems);
    let batch = count(&mut section, "batch", 1, problems);
    let length = required_count(&mut section, "length", "2048", problems);
    let accumulate = count(&mut section, "accumulate", 1, problems);
    let checkpointing = section.boolean("checkpointing", false);
    let optimizer = chosen(&mut section, "optimizer", Optimizer::ALL, Optimizer::name, problems);
    let sharding = chosen(&mut section, "sharding", Sharding::ALL, Sharding::name, problems);
    let learning_rate = section.number("learning_rate").and_then(|rate| positive("learning_rate", &rate, problems));
    let epochs = section.integer("epochs").and_then(|epochs| number("epochs", &epochs, 1, problems)).map(u64::from);
    section.finish();
    Some(Training {
        model: model?,
        datasets,
        trainer: trainer.unwrap_or(Trainer::Transformers),
        method: method?,
        precision: precision.unwrap_or(Precision::Bf16),
        batch: batch?,
        length: length?,
        accumulate: accumulate?,
        checkpointing,
        optimizer: optimizer.unwrap_or(Optimizer::AdamW),
        sharding: sharding.unwrap_or(Sharding::Ddp),
        learning_rate,
        epochs,
    })
}

fn serving(job: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<Serving> {
    let mut section = Section::open(format!("`serve` of the job `{job}`"), value, problems)?;
    section.required("model", "\"MODEL\"");
    let model = section.string("model").map(|model| carried(MODELS, &model, mentions));
    let engine = chosen(&mut section, "engine", Engine::ALL, Engine::name, problems);
    let length = required_count(&mut section, "length", "8192", problems);
    let concurrency = count(&mut section, "concurrency", 1, problems);
    section.finish();
    Some(Serving { model: model?, engine: engine.unwrap_or(Engine::Vllm), length: length?, concurrency: concurrency? })
}

fn method(section: &mut Section<'_>, problems: &Problems) -> Option<Method> {
    let rank = section.integer("rank");
    let alpha = section.integer("alpha");
    let targets = section.strings("targets");
    let chosen = section.string("method");
    let adapter = || {
        let given = rank.as_ref().map(|rank| number("rank", rank, 1, problems).map(u64::from));
        let alpha = match &alpha {
            Some(alpha) => Some(u64::from(number("alpha", alpha, 1, problems)?)),
            None => None,
        };
        let targets = targets.iter().map(|target| target.value.to_owned()).collect();
        Some(Adapter { rank: given.unwrap_or(Some(DEFAULT_RANK))?, alpha, targets })
    };
    match chosen.as_ref().map(|method| method.value) {
        Some("lora") => adapter().map(Method::Lora),
        Some("qlora") => adapter().map(Method::Qlora),
        Some("full") => {
            let strays = [rank.as_ref(), alpha.as_ref()].map(|number| number.map(|number| number.at));
            let stray = strays.into_iter().flatten().next().or_else(|| targets.first().map(|target| target.at));
            if let Some(at) = stray {
                problems.add_with_help(
                    at,
                    "full training has no adapters",
                    "leave it out, or write `method = \"lora\"`",
                );
            }
            Some(Method::Full)
        }
        Some(other) => {
            let at = chosen.as_ref().map_or(section.at, |method| method.at);
            unknown("method", other, at, &["full", "lora", "qlora"], problems);
            None
        }
        None => {
            section.missing("method", "\"lora\" (or \"full\", \"qlora\")");
            None
        }
    }
}

fn count(section: &mut Section<'_>, key: &'static str, default: u64, problems: &Problems) -> Option<u64> {
    match section.integer(key) {
        Some(given) => number(key, &given, 1, problems).map(u64::from),
        None => Some(default),
    }
}

/// A number above zero.
fn positive(key: &str, number: &Placed<'_, f64>, problems: &Problems) -> Option<serde_json::Number> {
    let found = serde_json::Number::from_f64(number.value).filter(|_| number.value > 0.0);
    if found.is_none() {
        let message = format!("`{key} = {}` is not above zero", number.value);
        problems.add_with_help(number.at, message, "leave it out for what is usual");
    }
    found
}

fn required_count(section: &mut Section<'_>, key: &'static str, example: &str, problems: &Problems) -> Option<u64> {
    section.required(key, example);
    section.integer(key).and_then(|given| number(key, &given, 1, problems)).map(u64::from)
}

/// One of several names.
fn chosen<T: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
    problems: &Problems,
) -> Option<T> {
    let Placed { value, at } = section.string(key)?;
    let found = all.iter().copied().find(|&choice| name(choice) == value);
    if found.is_none() {
        let names: Vec<&str> = all.iter().map(|&choice| name(choice)).collect();
        unknown(key, value, at, &names, problems);
    }
    found
}

fn unknown(key: &str, value: &str, at: &At, names: &[&str], problems: &Problems) {
    let message = format!("`{key} = \"{}\"` is not known", value.escape_debug());
    let help = match nearest(value, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", list(names)),
    };
    problems.add_with_help(at, message, help);
}
