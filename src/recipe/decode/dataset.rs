//! Decoding of `[dataset.NAME]`.

use super::checked;
use crate::recipe::{DatasetLayer, DatasetSource, name, problem::Problems, section::Section, value::Value};

/// Decodes the data set `name`.
pub(super) fn dataset(name: &str, value: &Value, problems: &Problems) -> Option<DatasetLayer> {
    let mut section = Section::open(format!("the data set `{name}`"), value, problems)?;
    section.required("path", "\"DIRECTORY\"");
    let path = section.string("path");
    section.finish();
    let path = path?;
    let shown = format!("the path `{}`", path.value.escape_debug());
    let written = checked(&shown, path.value, path.at, name::confined_path, problems)?;
    let source = DatasetSource::Path { base: path.at.file.dir().to_owned(), path: written.to_owned() };
    Some(DatasetLayer { source })
}
