//! Python packages.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    report::purl::PackageUrl,
    source::{
        licence::Licence,
        wheels::{LockedWheel, LockedWheels},
    },
};

/// The wheels of a layer.
pub(super) fn components(rows: &LockedWheels) -> Vec<Component> {
    rows.wheels.iter().map(component).collect()
}

fn component(wheel: &LockedWheel) -> Component {
    let name = wheel.name.as_str();
    Component {
        id: ComponentId::new("wheel", name, &[&wheel.version, &wheel.sha256.to_hex()]),
        name: name.to_owned(),
        version: Some(wheel.version.clone()),
        purl: Some(PackageUrl::new("pypi", None, name, Some(&wheel.version))),
        file: Some(wheel.file.clone()),
        pin: Pin::File(wheel.sha256),
        licence: Licence::all_of("pypi", &wheel.licenses),
        origin: None,
        role: Role::Contained,
    }
}
