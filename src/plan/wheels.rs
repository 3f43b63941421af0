//! Python packages: a layer of many parts, so that one that changes costs little more than itself.

use super::{
    Ingredients, PlannedLayer,
    part::{Part, Wanted},
};
use crate::{
    layer::wheels::{self, Bundle, InstallError, Scheme, bundles},
    lock::Inputs,
    recipe::{Arch, WheelsLayer},
    source::{
        debian::LockedPackage,
        wheels::{LockedWheel, LockedWheels, target::interpreter},
    },
};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;
/// What a page of an index and a line of requirements come to for each wheel, at most, in bytes.
const PAGE: u64 = 4 << 10;
/// What the tar adds for each wheel, at least.
const OVERHEAD: u64 = 64 << 10;

/// What part of a layer of wheels something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'w> {
    /// What makes a directory a virtual environment.
    Environment,
    /// Installed wheels.
    Installed(Bundle<'w>),
    /// Wheels as they are.
    Wheelhouse(Bundle<'w>),
    /// The index of those.
    Index,
}

impl Kind<'_> {
    /// The name of the part.
    pub fn name(&self) -> String {
        match self {
            Self::Environment => "environment".to_owned(),
            Self::Installed(bundle) => bundle.name.clone(),
            Self::Wheelhouse(bundle) => format!("wheelhouse-{}", bundle.name),
            Self::Index => "wheelhouse".to_owned(),
        }
    }
}

/// The parts that a layer has, bottom to top.
pub fn kinds<'w>(layer: &WheelsLayer, rows: &'w LockedWheels) -> Vec<Kind<'w>> {
    let mut kinds = Vec::new();
    if layer.install {
        kinds.extend(layer.to.is_some().then_some(Kind::Environment));
        kinds.extend(bundles(&rows.wheels).into_iter().map(Kind::Installed));
    }
    if layer.wheelhouse {
        kinds.extend(bundles(&rows.wheels).into_iter().map(Kind::Wheelhouse));
        kinds.push(Kind::Index);
    }
    kinds
}

/// The parts that `rows` make on the layers `below`.
pub(super) fn parts<'p>(
    layer: &WheelsLayer,
    rows: &LockedWheels,
    arch: Arch,
    below: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Result<Vec<Part>, InstallError> {
    let below: Vec<&PlannedLayer<'_>> = below.collect();
    let debian = below.iter().filter_map(|layer| match &layer.locked.inputs {
        Inputs::Debian(rows) => Some(&rows.packages),
        _ => None,
    });
    let packages: Vec<&LockedPackage> = debian.flatten().collect();
    let scheme = Scheme::new(rows.python, layer.to.as_ref())?;
    let compiler = if layer.bytecode { interpreter(&packages, rows.python) } else { Vec::new() };
    kinds(layer, rows)
        .into_iter()
        .map(|kind| {
            let tree = match &kind {
                Kind::Environment => Some(wheels::environment(&rows.target(arch), &scheme)?),
                Kind::Index => Some(wheels::wheelhouse_index(&rows.wheels)?),
                Kind::Installed(_) | Kind::Wheelhouse(_) => None,
            };
            let mut ingredients = Ingredients::new("wheels", FORMAT);
            ingredients.add("part", kind.name());
            ingredients.add("python", rows.python.to_string());
            let (chosen, estimate): (&[&LockedWheel], u64) = match &kind {
                Kind::Environment => {
                    ingredients.add("destination", scheme.data.to_string());
                    (&[], OVERHEAD)
                }
                Kind::Index => {
                    for wheel in &rows.wheels {
                        ingredients.add(format!("wheel {}", wheel.file), wheel.sha256.to_string());
                    }
                    (&[], OVERHEAD + PAGE * 2 * rows.wheels.len() as u64)
                }
                Kind::Wheelhouse(bundle) => (&bundle.wheels, bundle.wheels.iter().map(|wheel| wheel.size + PAGE).sum()),
                Kind::Installed(bundle) => {
                    ingredients.add("destination", scheme.site.to_string());
                    ingredients.add("bytecode", layer.bytecode.to_string());
                    for package in &compiler {
                        ingredients.add(format!("package {}", package.name), package.sha256.to_string());
                    }
                    let unpacked: u64 = bundle.wheels.iter().map(|wheel| wheel.installed_size).sum();
                    (&bundle.wheels, unpacked + unpacked / 4 + OVERHEAD)
                }
            };
            for wheel in chosen {
                let value = format!("{} {}", wheel.sha256, if wheel.requested { "requested" } else { "needed" });
                ingredients.add(format!("wheel {}", wheel.name), value);
            }
            let sources = chosen.iter().map(|wheel| Wanted { sha256: wheel.sha256, size: wheel.size }).collect();
            Ok(Part { name: Some(kind.name()), ingredients, sources, tree, estimate })
        })
        .collect()
}
