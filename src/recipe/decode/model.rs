//! Decoding of `[model.NAME]`.

use super::{
    Mention, checked,
    hub::{self, globs, only_with, repo_name},
    run,
};
use crate::recipe::{
    LayerKind, ModelLayer, ModelSource, PicklePolicy, name,
    problem::Problems,
    section::{Section, string, wrong_type},
    value::{Kind, Value},
};

/// Directories beside those of models: the cache of Hugging Face's libraries, and the encodings of tiktoken.
const TAKEN: [&str; 2] = ["hub", "tiktoken"];

/// Decodes the model `name`: files that are there, or a program that makes them.
pub(super) fn model(name: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<LayerKind> {
    let mut section = Section::open(format!("the model `{name}`"), value, problems)?;
    if TAKEN.contains(&name) {
        let message =
            format!("a model cannot be called `{name}`: the directory `/models/{name}` is for something else");
        problems.add_with_help(&value.at, message, "give it another name");
    }
    if let Some(program) = section.any("run") {
        section.finish();
        return run::model(name, program, mentions, problems).map(LayerKind::Run);
    }
    let source = source(name, &mut section, problems);
    let (include, exclude) = (globs(&mut section, "include"), globs(&mut section, "exclude"));
    let allow_pickle = section.any("allow_pickle").map(|value| pickle(value, problems)).unwrap_or_default();
    section.finish();
    Some(LayerKind::Model(ModelLayer { source: source?, include, exclude, allow_pickle }))
}

fn source(name: &str, section: &mut Section<'_>, problems: &Problems) -> Option<ModelSource> {
    let (hub, path) = (section.string("hub"), section.string("path"));
    let beside_hub = hub::Keys::take(section);
    let known_as = section.string("name");
    match (hub, path) {
        (Some(repo), None) => {
            only_with(&[("name", &known_as)], "path", problems);
            beside_hub.repository(&repo, problems).map(ModelSource::Hub)
        }
        (None, Some(path)) => {
            beside_hub.refuse(problems);
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
