//! What is in each image, by the lock.

use super::wheels;
use crate::{
    check::facts::{Crate, DebianPackage, Driver, Image, upstream},
    lock::{Inputs, Lock},
    recipe::{self, ImageKind, LayerKind, Recipe},
};
use pep440_rs::Version;
use std::collections::BTreeMap;

/// Where the packages of the component `main` lie in an archive (Debian Policy, 2.2.1).
const MAIN: &str = "pool/main/";

/// The images of a recipe, with what the lock has rows for.
pub(super) fn images(recipe: &Recipe, lock: &Lock) -> Vec<Image> {
    let systems = recipe.images.iter().filter(|image| image.kind == ImageKind::System);
    let images = systems.map(|image| {
        let mut found =
            Image { name: image.name.clone(), env: image.config.env.clone().into_iter().collect(), ..Image::default() };
        found.programs = programs(recipe, image);
        let places = recipe.places_in(&image.layers);
        for row in places.iter().filter_map(|place| lock.layer(place)) {
            add(&mut found, &row.inputs);
        }
        found.glibc = found.glibc.or_else(|| version_of(&found.debian, "libc6"));
        found.python = found.python.or_else(|| python(&found.debian));
        found
    });
    images.collect()
}

/// The Cargo packages whose binaries an image holds.
fn programs(recipe: &Recipe, image: &recipe::Image) -> Vec<String> {
    let layers = image.layers.iter().filter_map(|name| recipe.layer(name));
    let packages = layers.filter_map(|layer| match &layer.kind {
        LayerKind::Cargo(cargo) => Some(cargo.package.clone()),
        _ => None,
    });
    packages.collect()
}

fn add(image: &mut Image, inputs: &Inputs) {
    match inputs {
        Inputs::Debian(rows) => image.debian.extend(rows.packages.iter().map(|package| DebianPackage {
            name: package.name.clone(),
            version: package.version.clone(),
            licenses: package.licenses.clone(),
            is_main: package.path.starts_with(MAIN),
        })),
        Inputs::Cargo(rows) => {
            let used = rows.crates.iter().filter(|row| row.used);
            image.crates.extend(used.map(|row| Crate {
                name: row.name.clone(),
                version: row.version.clone(),
                license: row.license.clone(),
            }));
        }
        Inputs::Wheels(rows) => wheels::add(image, rows),
        Inputs::Files(_) | Inputs::Run(_) | Inputs::Model(_) | Inputs::Dataset(_) => {}
    }
}

fn version_of(packages: &[DebianPackage], name: &str) -> Option<Version> {
    let package = packages.iter().find(|package| package.name == name)?;
    upstream(&package.version).parse().ok()
}

/// The version of the interpreter: that of `libpython3.13-minimal` or `python3.13-minimal`, which hold it.
fn python(packages: &[DebianPackage]) -> Option<Version> {
    let full: BTreeMap<&str, Version> = packages
        .iter()
        .filter(|package| {
            let minor = package.name.strip_prefix("python3.").and_then(|rest| rest.strip_suffix("-minimal"));
            minor.is_some_and(|minor| minor.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .filter_map(|package| Some((package.name.as_str(), upstream(&package.version).parse().ok()?)))
        .collect();
    full.into_values().next_back().or_else(|| version_of(packages, "python3-minimal"))
}

/// The NVIDIA driver in an image: the package that holds the library, or the kernel's module.
pub(super) fn driver(image: &Image) -> Option<Driver> {
    let holds = |package: &&DebianPackage| {
        let name = package.name.as_str();
        matches!(name, "libcuda1" | "nvidia-driver" | "nvidia-driver-cuda" | "nvidia-kernel-dkms")
            || name.starts_with("libnvidia-compute-")
            || (name.starts_with("nvidia-tesla-") && name.ends_with("-driver"))
            || (name.starts_with("nvidia-kernel-open") && name.ends_with("dkms"))
    };
    image.debian.iter().filter(holds).find_map(|package| {
        let version = upstream(&package.version).parse().ok()?;
        Some(Driver { version, origin: format!("of the package `{}`", package.name) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(packages: &[(&str, &str)]) -> Image {
        let debian = packages.iter().map(|(name, version)| DebianPackage {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            ..DebianPackage::default()
        });
        Image { debian: debian.collect(), ..Image::default() }
    }

    #[test]
    fn the_driver_is_that_of_its_packages() {
        let with = image(&[("base-files", "13"), ("libcuda1", "550.163.01-2")]);
        assert_eq!(driver(&with).unwrap().version.to_string(), "550.163.01");
        assert_eq!(driver(&image(&[("nvidia-settings", "550.1-1"), ("libc6", "2.41-12")])), None);
    }

    #[test]
    fn python_and_glibc_are_those_of_debian() {
        let packages =
            image(&[("python3.13-minimal", "3.13.5-2"), ("libc6", "2.41-12"), ("python3-minimal", "3.13.5-1")]);
        assert_eq!(python(&packages.debian).unwrap().to_string(), "3.13.5");
        assert_eq!(version_of(&packages.debian, "libc6").unwrap().to_string(), "2.41");
    }
}
