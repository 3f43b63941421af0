//! Decoding of layers of Python packages.

use super::{Mention, checked, layer::destination, read_source};
use crate::recipe::{
    Provided, Sdists, WheelsLayer, name,
    problem::{At, Problems, suggestion},
    requirement,
    section::{Placed, Section, string, wrong_type},
    value::{Kind, Value},
};
use pep508_rs::{PackageName, Requirement, VersionOrUrl};
use std::str::FromStr;

/// Decodes `wheels` of the layer `name`.
pub(super) fn wheels(
    name: &str,
    value: &Value,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<WheelsLayer> {
    let mut section = Section::open(format!("`wheels` of the layer `{name}`"), value, problems)?;
    let mut requirements = requirements(&mut section, "requirements", problems);
    let file = section.string("requirements_file");
    requirements.extend(file.iter().flat_map(|file| of_file(file, problems)));
    let chosen = section.strings("with");
    let groups = section.any("groups");
    requirements.extend(groups.map(|groups| of_groups(groups, &chosen, problems)).unwrap_or_default());
    if let (None, Some(group)) = (groups, chosen.first()) {
        problems.add_with_help(group.at, "`with` chooses groups, and there are none", "add `groups = { NAME = […] }`");
    }
    if requirements.is_empty() && problems.is_empty() {
        section.missing("requirements", "[\"numpy\"]");
    }
    let constraints = self::requirements(&mut section, "constraints", problems);
    let index = section.string("index").and_then(|index| index_address(&index, problems));
    let extra_indexes = section.strings("extra_indexes");
    let extra_indexes = extra_indexes.iter().filter_map(|index| index_address(index, problems)).collect();
    let python = section.string("python").and_then(|python| series(&python, problems));
    let provided = section.any("provided").and_then(|value| provided(value, problems));
    let to = section.string("to").and_then(|to| destination("to", &to, problems));
    let install = section.boolean("install", true);
    let bytecode = section.boolean("bytecode", true);
    let wheelhouse = section.boolean("wheelhouse", false);
    if !install && !wheelhouse {
        let help = "add `wheelhouse = true`, or leave out `install = false`";
        problems.add_with_help(section.at, format!("the layer `{name}` neither installs nor keeps wheels"), help);
    }
    let sdists = sdists(name, &mut section, mentions, problems);
    if !sdists.projects.is_empty() && (wheelhouse || !install) {
        let help = "keep wheels in a layer of their own, and put a layer with `sdist` on top of it";
        problems.add_with_help(section.at, "what is built from source is installed, and in no wheelhouse", help);
    }
    section.finish();
    Some(WheelsLayer {
        requirements,
        constraints,
        index,
        extra_indexes,
        python,
        provided: provided.unwrap_or(Provided::Named(Vec::new())),
        to,
        install,
        bytecode,
        wheelhouse,
        sdists,
    })
}

/// What comes as source, and how it is built.
fn sdists(name: &str, section: &mut Section<'_>, mentions: &mut Vec<Mention>, problems: &Problems) -> Sdists {
    let project = |text: &Placed<'_, &str>| match PackageName::from_str(text.value) {
        Ok(project) => Some(project.to_string()),
        Err(_) => {
            let message = format!("`{}` is no name of a Python project", text.value.escape_debug());
            problems.add_with_help(text.at, message, "write `sdist = [\"NAME\"]`, without versions");
            None
        }
    };
    let projects: Vec<String> = section.strings("sdist").iter().filter_map(project).collect();
    let on = section.strings("build_on");
    let requires = requirements(section, "build_requires", problems);
    if projects.is_empty()
        && let Some(at) = on.first().map(|layer| layer.at)
    {
        problems.add_with_help(at, "`build_on` means nothing without `sdist`", "take it out");
    }
    for layer in &on {
        let by_layer = Some(name.to_owned());
        mentions.push(Mention { layer: layer.value.to_owned(), at: layer.at.clone(), by_layer });
    }
    Sdists { projects, on: on.iter().map(|layer| layer.value.to_owned()).collect(), requires }
}

fn requirements(section: &mut Section<'_>, key: &'static str, problems: &Problems) -> Vec<String> {
    section.strings(key).iter().filter_map(|text| requirement(text.value, text.at, problems)).collect()
}

/// A requirement (PEP 508) of something that an index has.
fn requirement(text: &str, at: &At, problems: &Problems) -> Option<String> {
    let shown = text.split("://").next().unwrap_or_default().escape_debug().to_string();
    match requirement::requirement(text) {
        Ok(Requirement { version_or_url: Some(VersionOrUrl::Url(_)), name, .. }) => {
            let help = "name an index that has it with `extra_indexes`";
            problems.add_with_help(at, format!("`{name}` is to come from an address of its own"), help);
            None
        }
        Ok(_) => Some(text.trim().to_owned()),
        Err(error) => {
            let help = "write it as `name`, `name[extra]`, `name>=1.2,<2` or `name; python_version < \"3.14\"`";
            problems.add_with_help(at, format!("`{shown}` is no requirement: {error}"), help);
            None
        }
    }
}

/// The requirements in a file beside the recipe, as pip reads it but without options.
fn of_file(file: &Placed<'_, &str>, problems: &Problems) -> Vec<String> {
    let Some(path) = checked("the path of `requirements_file`", file.value, file.at, name::confined_path, problems)
    else {
        return Vec::new();
    };
    let source = match read_source(&file.at.file.dir().join(path)) {
        Ok(source) => source,
        Err(error) => {
            problems.add(file.at, format!("the requirements `{path}` cannot be read: {error}"));
            return Vec::new();
        }
    };
    let joined = source.text().replace("\\\r\n", " ").replace("\\\n", " ");
    let mut found = Vec::new();
    for line in joined.lines() {
        let line = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default() };
        let line = line.trim();
        if line.starts_with('-') || line.contains(" --") {
            let help = "indexes and constraints are keys of `wheels`, and the lock pins every file by its digest";
            let option = line.split_whitespace().find(|word| word.starts_with('-')).unwrap_or_default();
            let option = option.split('=').next().unwrap_or_default().escape_debug();
            problems.add_with_help(file.at, format!("`{path}` has the option `{option}`"), help);
        } else if !line.is_empty() {
            found.extend(requirement(line, file.at, problems));
        }
    }
    found
}

/// The requirements of the groups that are chosen.
fn of_groups(groups: &Value, chosen: &[Placed<'_, &str>], problems: &Problems) -> Vec<String> {
    let Some(section) = Section::open("`groups`", groups, problems) else { return Vec::new() };
    let mut found = Vec::new();
    let mut known = Vec::new();
    for (key, value) in section.entries() {
        known.push(key.name.as_str());
        let Kind::Array(items) = &value.kind else {
            wrong_type(&key.name, "a list", value, problems);
            continue;
        };
        let texts = items.iter().filter_map(|item| string(&key.name, item, problems));
        let read: Vec<String> = texts.filter_map(|text| requirement(text.value, text.at, problems)).collect();
        if chosen.iter().any(|group| group.value == key.name) {
            found.extend(read);
        }
    }
    for group in chosen.iter().filter(|group| !known.contains(&group.value)) {
        let help = suggestion(group.value, &known);
        problems.add_with_help(group.at, format!("there is no group `{}`", group.value.escape_debug()), help);
    }
    found
}

/// The address of an index; credentials are the user's, not the recipe's.
fn index_address(text: &Placed<'_, &str>, problems: &Problems) -> Option<String> {
    let address = checked("the address of the index", text.value, text.at, name::mirror, problems)?;
    if address.contains('@') {
        let help = "keep credentials in `~/.netrc` or in the settings of pip or uv, and only the address here";
        problems.add_with_help(text.at, "the address of the index holds credentials", help);
        return None;
    }
    Some(address.trim_end_matches('/').to_owned())
}

/// `3.13`.
fn series(python: &Placed<'_, &str>, problems: &Problems) -> Option<String> {
    let minor = python.value.strip_prefix("3.").filter(|minor| !minor.is_empty() && minor.len() <= 3);
    if minor.is_some_and(|minor| minor.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(python.value.to_owned());
    }
    let help = "write `python = \"3.13\"`, or leave it out for the image's own";
    problems.add_with_help(python.at, format!("`{}` is no series of Python 3", python.value.escape_debug()), help);
    None
}

fn provided(value: &Value, problems: &Problems) -> Option<Provided> {
    match &value.kind {
        Kind::String(text) if text == "all" => Some(Provided::All),
        Kind::Array(items) => {
            let names = items.iter().filter_map(|item| string("provided", item, problems));
            let names = names.filter_map(|name| requirement(name.value, name.at, problems)).collect();
            Some(Provided::Named(names))
        }
        _ => {
            wrong_type("provided", "a list of projects or `\"all\"`", value, problems);
            None
        }
    }
}
