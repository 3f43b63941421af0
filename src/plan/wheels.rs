//! Python packages: a layer of many parts, so that one that changes costs little more than itself.

use super::{
    Ingredients, PlannedLayer,
    part::{Part, Wanted},
};
use crate::{
    layer::wheels::{self, BUILT, Bundle, InstallError, Scheme, bundles},
    lock::Inputs,
    recipe::{Arch, WheelsLayer},
    source::{
        debian::LockedPackage,
        wheels::{
            LockedSdist, LockedWheel, LockedWheels, PinnedFile,
            target::{Python, interpreter},
        },
    },
};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;
/// What a page of an index and a line of requirements come to for each wheel, at most, in bytes.
const PAGE: u64 = 4 << 10;
/// How many times its own length a source distribution comes to when it is built and installed, as far as anybody can tell.
const GROWTH: u64 = 16;
/// What the tar adds for each wheel, at least.
const OVERHEAD: u64 = 64 << 10;

/// What part of a layer of wheels something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'w> {
    /// What makes a directory a virtual environment.
    Environment,
    /// Installed wheels.
    Installed(Bundle<'w>),
    /// What is built from source, installed.
    Built(&'w LockedSdist),
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
            Self::Built(source) => format!("built-{}", source.name),
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
        kinds.extend(rows.sdists.iter().map(Kind::Built));
    }
    if layer.wheelhouse {
        kinds.extend(bundles(&rows.wheels).into_iter().map(Kind::Wheelhouse));
        kinds.push(Kind::Index);
    }
    kinds
}

/// The parts that `rows` make on the layers `below`; sources are built in the tree of `builders`.
pub(super) fn parts<'p>(
    layer: &WheelsLayer,
    rows: &LockedWheels,
    arch: Arch,
    below: impl Iterator<Item = &'p PlannedLayer<'p>>,
    builders: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Result<Vec<Part>, InstallError> {
    let below: Vec<&PlannedLayer<'_>> = below.collect();
    let builders: Vec<&PlannedLayer<'_>> = builders.collect();
    let scheme = Scheme::new(rows.python, layer.to.as_ref())?;
    let compiler = if layer.bytecode { interpreter_below(&below, rows.python) } else { Vec::new() };
    let installed = |ingredients: &mut Ingredients| {
        ingredients.add("destination", scheme.site.to_string());
        ingredients.add("bytecode", layer.bytecode.to_string());
        for package in &compiler {
            ingredients.add(format!("package {}", package.name), package.sha256.to_string());
        }
    };
    kinds(layer, rows)
        .into_iter()
        .map(|kind| {
            let tree = match &kind {
                Kind::Environment => Some(wheels::environment(&rows.target(arch), &scheme)?),
                Kind::Index => Some(wheels::wheelhouse_index(&rows.wheels)?),
                Kind::Installed(_) | Kind::Built(_) | Kind::Wheelhouse(_) => None,
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
                Kind::Built(source) => {
                    installed(&mut ingredients);
                    built(source, &builders, &mut ingredients);
                    (&[], source.size.saturating_mul(GROWTH) + OVERHEAD)
                }
                Kind::Installed(bundle) => {
                    installed(&mut ingredients);
                    let unpacked: u64 = bundle.wheels.iter().map(|wheel| wheel.installed_size).sum();
                    (&bundle.wheels, unpacked + unpacked / 4 + OVERHEAD)
                }
            };
            for wheel in chosen {
                let value = format!("{} {}", wheel.sha256, if wheel.requested { "requested" } else { "needed" });
                ingredients.add(format!("wheel {}", wheel.name), value);
            }
            let files = chosen.iter().map(|&wheel| PinnedFile::from(wheel));
            let source = if let Kind::Built(source) = &kind { Some(source.files()) } else { None };
            let sources = files.chain(source.into_iter().flatten());
            let sources = sources.map(|file| Wanted { sha256: file.sha256, size: file.size }).collect();
            Ok(Part { name: Some(kind.name()), ingredients, sources, tree, estimate })
        })
        .collect()
}

/// The packages of the interpreter in the layers `below`: all that bytecode depends on but its source.
pub fn interpreter_below<'p>(below: &[&'p PlannedLayer<'p>], python: Python) -> Vec<&'p LockedPackage> {
    let debian = below.iter().filter_map(|layer| match &layer.locked.inputs {
        Inputs::Debian(rows) => Some(&rows.packages),
        _ => None,
    });
    let packages: Vec<&LockedPackage> = debian.flatten().collect();
    interpreter(&packages, python)
}

/// Everything that determines what a source distribution is built to.
fn built(source: &LockedSdist, builders: &[&PlannedLayer<'_>], ingredients: &mut Ingredients) {
    ingredients.add("format of builds", BUILT.to_string());
    ingredients.add(format!("sdist {}", source.name), source.sha256.to_string());
    ingredients.add("requested", source.requested.to_string());
    ingredients.add("needs", source.requires.join(", "));
    for wheel in &source.build {
        ingredients.add(format!("build requirement {}", wheel.name), wheel.sha256.to_string());
    }
    for (number, part) in builders.iter().enumerate() {
        ingredients.add(format!("build layer {number} ({})", part.name()), part.key.to_hex());
    }
}
