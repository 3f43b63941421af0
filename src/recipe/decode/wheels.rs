//! Decoding of layers of Python packages.

use crate::recipe::{WheelsLayer, problem::Problems, section::Section, value::Value};

/// Decodes `wheels` of the layer `name`.
pub(super) fn wheels(name: &str, value: &Value, problems: &Problems) -> Option<WheelsLayer> {
    let mut section = Section::open(format!("`wheels` of the layer `{name}`"), value, problems)?;
    section.required("requirements", "[\"numpy\"]");
    let requirements = section.strings("requirements").iter().map(|text| text.value.to_owned()).collect();
    let constraints = section.strings("constraints").iter().map(|text| text.value.to_owned()).collect();
    let python = section.string("python").map(|text| text.value.to_owned());
    section.finish();
    Some(WheelsLayer { requirements, constraints, python })
}
