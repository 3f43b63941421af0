//! Binaries of Cargo workspaces and what they are built from.

use super::{Component, ComponentId, Pin, Role, debian};
use crate::{
    lock::{Inputs, Lock},
    recipe::CargoLayer,
    report::purl::PackageUrl,
    source::{
        cargo::{LockedCargo, LockedCrate, Toolchain},
        licence::Licence,
    },
};

/// The binary, its crates, its compiler, and what is linked to it from the build root.
pub(super) fn components(lock: &Lock, layer: &CargoLayer, rows: &LockedCargo) -> Vec<Component> {
    let binary = binary(layer, rows);
    let id = binary.id.clone();
    let mut components = vec![binary, toolchain(&rows.toolchain, &id)];
    components.extend(rows.crates.iter().map(|row| krate(row, &id)));
    components.extend(linked(lock, &layer.build_root, &id));
    components
}

fn binary(layer: &CargoLayer, rows: &LockedCargo) -> Component {
    let (to, features, sources) = (layer.to.to_string(), layer.features.join(","), rows.sources.to_hex());
    Component {
        id: ComponentId::new("binary", &layer.bin, &[&layer.package, &to, &features, &sources]),
        name: layer.bin.clone(),
        version: rows.version.clone(),
        // It is in no registry under that name.
        purl: None,
        file: Some(to),
        pin: Pin::Sources(rows.sources),
        licence: Licence::declared("cargo", rows.license.as_deref()),
        origin: Some(format!("package {} of a Cargo workspace beside the recipe", layer.package)),
        role: Role::Contained,
    }
}

fn krate(row: &LockedCrate, binary: &ComponentId) -> Component {
    let sha256 = row.sha256.to_hex();
    Component {
        id: ComponentId::new("crate", &row.name, &[&row.version, &sha256]),
        name: row.name.clone(),
        version: Some(row.version.clone()),
        purl: Some(PackageUrl::new("cargo", None, &row.name, Some(&row.version))),
        file: Some(format!("{}-{}.crate", row.name, row.version)),
        pin: Pin::File(row.sha256),
        licence: Licence::declared("cargo", row.license.as_deref()),
        origin: None,
        role: if row.used { Role::BuiltInto(binary.clone()) } else { Role::Pinned },
    }
}

/// The compiler, whose standard library is in every binary.
fn toolchain(toolchain: &Toolchain, binary: &ComponentId) -> Component {
    Component {
        id: ComponentId::new("rust", &toolchain.rustc, &[&toolchain.commit, &toolchain.host]),
        name: "rust".to_owned(),
        version: Some(toolchain.rustc.clone()),
        purl: Some(PackageUrl::new("generic", None, "rust", Some(&toolchain.rustc))),
        file: None,
        pin: Pin::Commit(toolchain.commit.clone()),
        licence: Licence::unknown(),
        origin: Some(format!("the compiler and its standard library for {}", toolchain.host)),
        role: Role::ToolOf(binary.clone()),
    }
}

/// The packages of the build root whose start files and archives are linked to a binary: by Debian's policy (8.3, 8.4)
/// those lie in the packages for development. Which of them a binary took something from is not known.
fn linked(lock: &Lock, build_root: &str, binary: &ComponentId) -> Vec<Component> {
    let root = lock.layers.iter().find(|layer| layer.name == build_root && layer.below.is_empty());
    let Some(Inputs::Debian(rows)) = root.map(|root| &root.inputs) else { return Vec::new() };
    let packages = debian::components(lock, rows).into_iter().filter(|package| package.name.ends_with("-dev"));
    packages.map(|package| Component { role: Role::BuiltInto(binary.clone()), ..package }).collect()
}
