//! Debian packages.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    lock::{Lock, LockedDebian},
    report::purl::PackageUrl,
    source::{debian::LockedPackage, licence::Licence},
};

/// The packages of a layer.
pub(super) fn components(lock: &Lock, rows: &LockedDebian) -> Vec<Component> {
    let distribution = distribution(lock, rows);
    rows.packages.iter().map(|package| component(package, distribution)).collect()
}

fn component(package: &LockedPackage, distribution: Option<&str>) -> Component {
    let sha256 = package.sha256.to_hex();
    let mut purl = PackageUrl::new("deb", Some("debian"), &package.name, Some(&package.version));
    purl.qualify("arch", &package.arch);
    if let Some(distribution) = distribution {
        purl.qualify("distro", distribution);
    }
    Component {
        id: ComponentId::new("deb", &package.name, &[&package.version, &package.arch, &sha256]),
        name: package.name.clone(),
        version: Some(package.version.clone()),
        purl: Some(purl),
        file: package.path.rsplit('/').next().map(str::to_owned),
        pin: Pin::File(package.sha256),
        licence: Licence::all_of("debian", &package.licenses),
        origin: Some(format!("{} in the archive {}", package.path, package.archive)),
        role: Role::Contained,
    }
}

/// The codename of the distribution, where all archives of the layer are of one. A codename has no hyphen; what follows
/// one is the pocket (`trixie-security`).
fn distribution<'l>(lock: &'l Lock, rows: &LockedDebian) -> Option<&'l str> {
    let used = lock.archives.iter().filter(|archive| rows.releases.contains(&archive.sha256));
    let mut names: Vec<&str> = used.filter_map(|archive| archive.codename.split('-').next()).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [name] if !name.is_empty() => Some(name),
        _ => None,
    }
}
