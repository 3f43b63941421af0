//! Python packages.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    report::purl::PackageUrl,
    source::{
        licence::Licence,
        wheels::{LockedSdist, LockedWheel, LockedWheels},
    },
};

/// The packages of a layer, and what of them was built with what; those that Debian provides are Debian's.
pub(super) fn components(rows: &LockedWheels) -> Vec<Component> {
    let wheels = rows.wheels.iter().map(|wheel| of_wheel(wheel, Role::Contained));
    wheels.chain(rows.sdists.iter().flat_map(of_sdist)).collect()
}

fn of_wheel(wheel: &LockedWheel, role: Role) -> Component {
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
        role,
    }
}

/// A package that was built from source, and the wheels that it was built with.
fn of_sdist(sdist: &LockedSdist) -> Vec<Component> {
    let name = sdist.name.as_str();
    let mut purl = PackageUrl::new("pypi", None, name, Some(&sdist.version));
    purl.qualify("file_name", &sdist.file);
    let id = ComponentId::new("pypi", name, &[&sdist.version, &sdist.sha256.to_hex()]);
    let own = Component {
        id: id.clone(),
        name: name.to_owned(),
        version: Some(sdist.version.clone()),
        purl: Some(purl),
        file: Some(sdist.file.clone()),
        pin: Pin::File(sdist.sha256),
        licence: Licence::all_of("pypi", &sdist.licenses),
        origin: Some("a Python package index, as source".to_owned()),
        role: Role::Contained,
    };
    let tools = sdist.build.iter().map(|wheel| of_wheel(wheel, Role::ToolOf(id.clone())));
    std::iter::once(own).chain(tools).collect()
}
