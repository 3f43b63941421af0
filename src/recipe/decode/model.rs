//! Decoding of `[model.NAME]`.

use super::checked;
use crate::recipe::{ModelLayer, ModelSource, name, problem::Problems, section::Section, value::Value};

/// Decodes the model `name`.
pub(super) fn model(name: &str, value: &Value, problems: &Problems) -> Option<ModelLayer> {
    let mut section = Section::open(format!("the model `{name}`"), value, problems)?;
    let hub = section.string("hub");
    let path = section.string("path");
    let revision = section.string("revision").map_or("main", |revision| revision.value).to_owned();
    let known_as = section.string("name").map(|name| name.value.to_owned());
    let include = section.strings("include").iter().map(|text| text.value.to_owned()).collect();
    let exclude = section.strings("exclude").iter().map(|text| text.value.to_owned()).collect();
    let allow_pickle = section.boolean("allow_pickle", false);
    let source = match (hub, path) {
        (Some(repo), None) => Some(ModelSource::Hub { repo: repo.value.to_owned(), revision }),
        (None, Some(path)) => {
            let shown = format!("the path `{}`", path.value.escape_debug());
            let written = checked(&shown, path.value, path.at, name::confined_path, problems);
            let base = path.at.file.dir().to_owned();
            written.map(|path| ModelSource::Directory { base, path: path.to_owned(), name: known_as })
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
    };
    section.finish();
    Some(ModelLayer { source: source?, include, exclude, allow_pickle })
}
