//! Shared layer definitions: a TOML file with `[parameters]` and the body of a layer in which `${name}` stands for
//! what the recipe gives.
//!
//! ```toml
//! [parameters]
//! suite = { type = "string", default = "trixie" }
//! packages = { type = "list", default = [] }
//!
//! [debian]
//! suite = "${suite}"
//! packages = ["base-files", "${packages}"]
//! ```
//!
//! A string that is nothing but `${name}` takes the parameter's value whole; in a list, a list is spliced in. Elsewhere
//! the parameter's text is put in. `$$` is a dollar sign.
//!
//! `use = "builtin:NAME"` takes a definition that is part of gapimage. Its path is `builtin:/NAME.toml`, so what it uses
//! in turn is looked for there too.

use super::{
    decode::read_source,
    problem::{At, Problems, SourceFile, suggestion},
    section::{Section, wrong_type},
    value::{Key, Kind, Table, Value, parse},
};
use crate::builtin;
use gap_format::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the definitions lie that are part of gapimage.
const BUILTIN: &str = "builtin:";
/// How deep definitions may use definitions.
const MAX_DEPTH: usize = 8;

/// The types that a parameter can have.
const TYPES: [&str; 4] = ["string", "integer", "boolean", "list"];

/// Replaces a layer that says `use = "FILE"` by the body of that definition, as often as needed. A layer without `use`
/// comes back as it is. `None` if something was wrong; it is noted then. What was used is added to `used`.
pub(super) fn expand(
    name: &str,
    layer: &Value,
    used: &mut BTreeSet<(String, Digest)>,
    problems: &Problems,
) -> Option<Value> {
    let mut chain: Vec<PathBuf> = Vec::new();
    let mut current = layer.clone();
    loop {
        let Kind::Table(table) = &current.kind else { return Some(current) };
        let Some((_, target)) = table.get("use") else { return Some(current) };
        let Kind::String(target_path) = &target.kind else {
            wrong_type("use", "a string", target, problems);
            return None;
        };
        if let Err(allowed) = super::name::relative_path(target_path) {
            problems.add_with_help(&target.at, "`use` is not a path that can be followed", format!("write {allowed}"));
            return None;
        }
        let path = match target_path.strip_prefix(BUILTIN) {
            Some(name) => format!("{BUILTIN}/{name}.toml").into(),
            None => target.at.file.dir().join(target_path),
        };
        enter(&path, &target.at, &mut chain, problems)?;
        let file = match read(&path) {
            Ok(file) => file,
            Err(error) => {
                problems.add(&target.at, format!("the definition `{}` cannot be read: {error}", path.display()));
                return None;
            }
        };
        used.insert((target_path.clone(), Digest::of(file.text().as_bytes())));
        current = instantiate(name, &file, &target.at, table, problems)?;
    }
}

fn enter(path: &Path, at: &At, chain: &mut Vec<PathBuf>, problems: &Problems) -> Option<()> {
    let real = identity(path, at, problems)?;
    if chain.contains(&real) {
        problems.add_with_help(at, "this definition uses itself", "take the `use` out of one of the definitions");
        return None;
    }
    if chain.len() == MAX_DEPTH {
        problems.add(at, format!("definitions use definitions more than {MAX_DEPTH} deep"));
        return None;
    }
    chain.push(real);
    Some(())
}

/// The one path of a definition that there is.
fn identity(path: &Path, at: &At, problems: &Problems) -> Option<PathBuf> {
    match (builtin_name(path), path.canonicalize()) {
        (Some(name), _) if builtin::definition(name).is_none() => {
            let known: Vec<&str> = builtin::definitions().collect();
            let message = format!("gapimage has no definition `{}`", name.escape_debug());
            problems.add_with_help(at, message, suggestion(name, &known));
            None
        }
        (Some(_), _) => Some(path.to_owned()),
        (None, Ok(real)) => Some(real),
        (None, Err(error)) => {
            let message = format!("the definition `{}` cannot be read: {error}", path.display());
            problems.add_with_help(at, message, "the path starts from the directory of the file that names it");
            None
        }
    }
}

/// Fills into the definition in `file` what `user` gives.
fn instantiate(name: &str, file: &Arc<SourceFile>, at: &At, user: &Table, problems: &Problems) -> Option<Value> {
    let definition = parse(file, problems)?;
    let Kind::Table(table) = definition.kind else { return None };
    let parameters = table.get("parameters").map(|(_, value)| declared(value, problems));
    let arguments = arguments(name, user, &parameters.unwrap_or_default(), problems)?;
    let substitution = Substitution { arguments: &arguments, problems };
    let entries = table.entries.into_iter().filter(|(key, _)| key.name != "parameters");
    let entries = entries.map(|(key, value)| Some((key, substitution.value(value)?))).collect::<Option<Vec<_>>>()?;
    let span = at.span.clone();
    let at = if entries.is_empty() { At { file: Arc::clone(&at.file), span } } else { definition.at };
    Some(Value { kind: Kind::Table(Table { entries }), at })
}

/// The name of a definition that is part of gapimage, if this is the path of one.
fn builtin_name(path: &Path) -> Option<&str> {
    path.strip_prefix(BUILTIN).ok()?.to_str()?.strip_suffix(".toml")
}

fn read(path: &Path) -> io::Result<Arc<SourceFile>> {
    match builtin_name(path).and_then(builtin::definition) {
        Some(text) => Ok(SourceFile::new(path, text.to_owned())),
        None => read_source(path),
    }
}

/// A parameter as a definition declares it.
struct Parameter {
    type_name: String,
    default: Option<Value>,
}

fn declared(value: &Value, problems: &Problems) -> BTreeMap<String, Parameter> {
    let mut parameters = BTreeMap::new();
    let Some(section) = Section::open("`[parameters]`", value, problems) else { return parameters };
    for (key, value) in section.entries() {
        if let Some(parameter) = parameter(key, value, problems) {
            parameters.insert(key.name.clone(), parameter);
        }
    }
    parameters
}

fn parameter(key: &Key, value: &Value, problems: &Problems) -> Option<Parameter> {
    let mut section = Section::open(format!("the parameter `{}`", key.name), value, problems)?;
    section.required("type", "\"string\"")?;
    let type_name = section.string("type")?;
    section.string("about");
    let default = section.any("default").cloned();
    section.finish();
    if key.name == "use" {
        problems.add(&key.at, "a parameter cannot be called `use`");
        return None;
    }
    if !TYPES.contains(&type_name.value) {
        let message = format!("there is no parameter type `{}`", type_name.value);
        problems.add_with_help(type_name.at, message, suggestion(type_name.value, &TYPES));
        return None;
    }
    if let Some(default) = &default {
        check_type(&key.name, type_name.value, default, problems)?;
    }
    Some(Parameter { type_name: type_name.value.to_owned(), default })
}

fn check_type(key: &str, type_name: &str, value: &Value, problems: &Problems) -> Option<()> {
    let (fits, wanted) = match type_name {
        "string" => (matches!(value.kind, Kind::String(_)), "a string"),
        "integer" => (matches!(value.kind, Kind::Integer(_)), "an integer"),
        "boolean" => (matches!(value.kind, Kind::Boolean(_)), "`true` or `false`"),
        _ => (matches!(value.kind, Kind::Array(_)), "a list"),
    };
    if !fits {
        wrong_type(key, wanted, value, problems);
    }
    fits.then_some(())
}

/// What the recipe gives for each parameter, defaults filled in.
fn arguments(
    name: &str,
    user: &Table,
    parameters: &BTreeMap<String, Parameter>,
    problems: &Problems,
) -> Option<BTreeMap<String, Value>> {
    let mut arguments = BTreeMap::new();
    let mut good = true;
    let known: Vec<&str> = parameters.keys().map(String::as_str).collect();
    for (key, value) in user.entries.iter().filter(|(key, _)| key.name != "use") {
        let Some(parameter) = parameters.get(&key.name) else {
            let message = format!("the definition of the layer `{name}` has no parameter `{}`", key.name);
            problems.add_with_help(&key.at, message, suggestion(&key.name, &known));
            good = false;
            continue;
        };
        good &= check_type(&key.name, &parameter.type_name, value, problems).is_some();
        arguments.insert(key.name.clone(), value.clone());
    }
    for (key, parameter) in parameters {
        if arguments.contains_key(key) {
            continue;
        }
        if let Some(default) = &parameter.default {
            arguments.insert(key.clone(), default.clone());
        } else if let Some((_, target)) = user.get("use") {
            let help = format!("add `{key} = …` ({})", parameter.type_name);
            problems.add_with_help(&target.at, format!("this definition needs the parameter `{key}`"), help);
            good = false;
        }
    }
    good.then_some(arguments)
}

struct Substitution<'a> {
    arguments: &'a BTreeMap<String, Value>,
    problems: &'a Problems,
}

impl Substitution<'_> {
    fn value(&self, value: Value) -> Option<Value> {
        let kind = match value.kind {
            Kind::String(text) => match whole_parameter(&text) {
                Some(name) => return self.argument(name, &value.at).cloned(),
                None => Kind::String(self.text(&text, &value.at)?),
            },
            Kind::Array(items) => Kind::Array(self.items(items)?),
            Kind::Table(table) => {
                let entries = table.entries.into_iter().map(|(key, value)| Some((key, self.value(value)?)));
                Kind::Table(Table { entries: entries.collect::<Option<_>>()? })
            }
            plain @ (Kind::Integer(_) | Kind::Float(_) | Kind::Boolean(_) | Kind::Datetime(_)) => plain,
        };
        Some(Value { kind, at: value.at })
    }

    fn items(&self, items: Vec<Value>) -> Option<Vec<Value>> {
        let mut filled = Vec::with_capacity(items.len());
        for item in items {
            let splice = matches!(&item.kind, Kind::String(text) if whole_parameter(text).is_some());
            match self.value(item)? {
                Value { kind: Kind::Array(spliced), .. } if splice => filled.extend(spliced),
                value => filled.push(value),
            }
        }
        Some(filled)
    }

    fn text(&self, text: &str, at: &At) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                filled.push('$');
                rest = after;
            } else if let Some((name, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
                match &self.argument(name, at)?.kind {
                    Kind::String(text) => filled.push_str(text),
                    Kind::Integer(integer) => filled.push_str(&integer.to_string()),
                    Kind::Boolean(boolean) => filled.push_str(&boolean.to_string()),
                    other => {
                        let message = format!("`${{{name}}}` is {} and cannot stand within a text", other.type_name());
                        self.problems.add_with_help(at, message, "let it be the whole string");
                        return None;
                    }
                }
                rest = after;
            } else {
                self.problems.add_with_help(
                    at,
                    "a lone `$`",
                    "write `${name}` for a parameter, `$$` for a dollar sign",
                );
                return None;
            }
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn argument(&self, name: &str, at: &At) -> Option<&Value> {
        let found = self.arguments.get(name);
        if found.is_none() {
            let known: Vec<&str> = self.arguments.keys().map(String::as_str).collect();
            let message = format!("`${{{name}}}` is not a parameter of this definition");
            self.problems.add_with_help(at, message, suggestion(name, &known));
        }
        found
    }
}

fn whole_parameter(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['}', '$'])).then_some(name)
}
