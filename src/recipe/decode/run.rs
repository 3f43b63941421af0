//! Decoding of layers that programs make, and what they have in common with tests.

use super::{MODELS, Mention, carried_layers, layer::destination, text, texts};
use crate::{
    layer::tree::TreePath,
    recipe::{RunLayer, problem::Problems, section::Section, value::Value},
};
use std::{collections::BTreeMap, time::Duration};

/// How long a program may take when nothing is said, in seconds.
const TIME_LIMIT: u64 = 600;
/// The longest that can be asked for: a week.
const MAX_TIME_LIMIT: u64 = 7 * 24 * 3600;

/// Decodes `run` of the layer `name`.
pub(super) fn run(name: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<RunLayer> {
    let mut section = Section::open(format!("`run` of the layer `{name}`"), value, problems)?;
    let to = match section.any("to") {
        Some(_) => Some(directory(&mut section, "to", problems)?),
        None => None,
    };
    program(name, section, to, mentions, problems)
}

/// Decodes `run` of the model `name`, which lies where models lie.
pub(super) fn model(name: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<RunLayer> {
    let section = Section::open(format!("`run` of the model `{name}`"), value, problems)?;
    let to = TreePath::new(format!("models/{name}")).ok()?;
    program(&format!("{MODELS}{name}"), section, Some(to), mentions, problems)
}

/// What makes the layer `name`, whose files lie at `to`, or where they were made.
fn program(
    name: &str,
    mut section: Section<'_>,
    to: Option<TreePath>,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<RunLayer> {
    section.required("on", "[\"base\"]");
    let named = section.strings("on");
    let mut on: Vec<String> = named.iter().map(|layer| layer.value.to_owned()).collect();
    let by_layer = Some(name.to_owned());
    for layer in named {
        mentions.push(Mention { layer: layer.value.to_owned(), at: layer.at.clone(), by_layer: by_layer.clone() });
    }
    on.extend(carried_layers(&mut section, &by_layer, mentions));
    section.required("command", "[\"python3\", \"/src/make.py\"]");
    let command = command(&mut section, problems);
    section.required("output", "\"/out\"");
    let output = directory(&mut section, "output", problems);
    let to = to.or_else(|| output.clone());
    let (env, time_limit) = (environment(&mut section, problems), time_limit(&mut section, problems));
    let twice = section.boolean("twice", true);
    section.finish();
    Some(RunLayer { on, command: command?, env, output: output?, to: to?, time_limit, twice })
}

/// A program with its arguments; `None` if the key is missing or empty.
pub(super) fn command(section: &mut Section<'_>, problems: &Problems) -> Option<Vec<String>> {
    let list = section.list("command")?;
    let command = texts(&section.strings("command"), problems);
    if list.value.is_empty() || command.first().is_some_and(String::is_empty) {
        problems.add_with_help(list.at, "`command` names no program", "its first word is the program");
        return None;
    }
    Some(command)
}

/// Variables for a program.
pub(super) fn environment(section: &mut Section<'_>, problems: &Problems) -> BTreeMap<String, String> {
    let table = section.string_table("env");
    for (name, value) in table.iter().filter(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        problems.add(value.at, format!("`{}` cannot be the name of a variable", name.escape_debug()));
    }
    table.into_iter().filter_map(|(name, value)| Some((name, text(&value, problems)?))).collect()
}

/// How long a program may take.
pub(super) fn time_limit(section: &mut Section<'_>, problems: &Problems) -> Duration {
    let seconds = section.integer("time_limit").and_then(|seconds| match u64::try_from(seconds.value) {
        Ok(value @ 1..=MAX_TIME_LIMIT) => Some(value),
        _ => {
            let help = format!("between 1 and {MAX_TIME_LIMIT} seconds");
            problems.add_with_help(seconds.at, format!("`time_limit = {}` is no time limit", seconds.value), help);
            None
        }
    });
    Duration::from_secs(seconds.unwrap_or(TIME_LIMIT))
}

fn directory(section: &mut Section<'_>, key: &'static str, problems: &Problems) -> Option<TreePath> {
    let path = section.string(key)?;
    destination(key, &path, problems)
}
