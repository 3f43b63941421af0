//! Python packages.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    report::purl::PackageUrl,
    source::{
        licence::Licence,
        wheels::{LockedWheel, LockedWheels},
    },
};

/// The packages of a layer; those that Debian provides are Debian's.
pub(super) fn components(rows: &LockedWheels) -> Vec<Component> {
    rows.wheels.iter().map(component).collect()
}

fn component(wheel: &LockedWheel) -> Component {
    let name = wheel.name.as_str();
    let mut purl = PackageUrl::new("pypi", None, name, Some(&wheel.version));
    purl.qualify("file_name", &wheel.file);
    Component {
        id: ComponentId::new("pypi", name, &[&wheel.version, &wheel.sha256.to_hex()]),
        name: name.to_owned(),
        version: Some(wheel.version.clone()),
        purl: Some(purl),
        file: Some(wheel.file.clone()),
        pin: Pin::File(wheel.sha256),
        licence: Licence::all_of("pypi", &wheel.licenses),
        origin: Some("a Python package index".to_owned()),
        role: Role::Contained,
    }
}
