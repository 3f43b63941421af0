//! Decoding of `[model.NAME]`.

use super::checked;
use crate::recipe::{
    ModelLayer, ModelSource, PicklePolicy, RepoName, name,
    problem::Problems,
    section::{Placed, Section, string, wrong_type},
    value::{Kind, Value},
};

/// Directories beside those of models: the cache of Hugging Face's libraries, and the encodings of tiktoken.
const TAKEN: [&str; 2] = ["hub", "tiktoken"];

/// Decodes the model `name`.
pub(super) fn model(name: &str, value: &Value, problems: &Problems) -> Option<ModelLayer> {
    let mut section = Section::open(format!("the model `{name}`"), value, problems)?;
    if TAKEN.contains(&name) {
        let message =
            format!("a model cannot be called `{name}`: the directory `/models/{name}` is for something else");
        problems.add_with_help(&value.at, message, "give it another name");
    }
    let source = source(name, &mut section, problems);
    let globs = |listed: Vec<Placed<'_, &str>>| listed.iter().map(|glob| glob.value.to_owned()).collect();
    let include = globs(section.strings("include"));
    let exclude = globs(section.strings("exclude"));
    let allow_pickle = section.any("allow_pickle").map(|value| pickle(value, problems)).unwrap_or_default();
    section.finish();
    Some(ModelLayer { source: source?, include, exclude, allow_pickle })
}

fn source(name: &str, section: &mut Section<'_>, problems: &Problems) -> Option<ModelSource> {
    let hub = section.string("hub");
    let path = section.string("path");
    let revision = section.string("revision");
    let endpoint = section.string("endpoint");
    let known_as = section.string("name");
    match (hub, path) {
        (Some(repo), None) => {
            only_with(&[("name", &known_as)], "path", problems);
            let what = format!("the revision `{}`", revision.as_ref().map_or("main", |text| text.value).escape_debug());
            let revision = match &revision {
                Some(text) => checked(&what, text.value, text.at, name::revision, problems)?,
                None => "main",
            };
            let endpoint = match &endpoint {
                Some(text) => Some(checked("the address of the hub", text.value, text.at, name::endpoint, problems)?),
                None => None,
            };
            let (revision, endpoint) = (revision.to_owned(), endpoint.map(str::to_owned));
            Some(ModelSource::Hub { repo: repo_name(&repo, problems)?, revision, endpoint })
        }
        (None, Some(path)) => {
            only_with(&[("revision", &revision), ("endpoint", &endpoint)], "hub", problems);
            let shown = format!("the path `{}`", path.value.escape_debug());
            let written = checked(&shown, path.value, path.at, name::confined_path, problems)?.to_owned();
            let name = match &known_as {
                Some(text) => Some(repo_name(text, problems)?),
                None => None,
            };
            Some(ModelSource::Directory { base: path.at.file.dir().to_owned(), path: written, name })
        }
        (None, None) => {
            section.missing("hub", "\"ORGANISATION/NAME\"");
            None
        }
        (Some(_), Some(path)) => {
            let message = format!("the model `{name}` has both `hub` and `path`");
            problems.add_with_help(path.at, message, "leave out one of the two");
            None
        }
    }
}

/// Notes the keys that mean something only beside `with`.
fn only_with(keys: &[(&str, &Option<Placed<'_, &str>>)], with: &str, problems: &Problems) {
    for (key, value) in keys {
        if let Some(value) = value {
            let message = format!("`{key}` means nothing without `{with}`");
            problems.add_with_help(value.at, message, "take it out");
        }
    }
}

fn repo_name(text: &Placed<'_, &str>, problems: &Problems) -> Option<RepoName> {
    match RepoName::new(text.value) {
        Ok(name) => Some(name),
        Err(rule) => {
            let message = format!("`{}` is no name of a repository", text.value.escape_debug());
            problems.add_with_help(text.at, message, format!("allowed: {rule}"));
            None
        }
    }
}

/// `true`, `false`, or a list of imports that are allowed besides those that are known to be harmless.
fn pickle(value: &Value, problems: &Problems) -> PicklePolicy {
    match &value.kind {
        Kind::Boolean(false) => PicklePolicy::Refuse,
        Kind::Boolean(true) => PicklePolicy::Allow(Vec::new()),
        Kind::Array(items) => {
            let names = items.iter().filter_map(|item| string("allow_pickle", item, problems));
            PicklePolicy::Allow(names.map(|name| name.value.to_owned()).collect())
        }
        _ => {
            wrong_type("allow_pickle", "`true`, `false` or a list of imports", value, problems);
            PicklePolicy::Refuse
        }
    }
}
