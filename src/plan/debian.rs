//! Debian packages: a layer of one part.

use super::{
    Ingredients, PlannedLayer,
    part::{Part, Wanted},
};
use crate::{lock::LockedDebian, recipe::DebianLayer};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;

/// The part that `rows` make on the layers `below`.
pub(super) fn part<'p>(
    layer: &DebianLayer,
    rows: &LockedDebian,
    below: impl Iterator<Item = &'p PlannedLayer<'p>>,
) -> Part {
    let mut ingredients = Ingredients::new("debian", FORMAT);
    ingredients.add("configure", layer.configure.to_string());
    for package in &rows.packages {
        let value = format!("{} {} {}", package.version, package.sha256, package.order);
        ingredients.add(format!("package {}:{}", package.name, package.arch), value);
    }
    for (number, layer) in below.enumerate() {
        ingredients.add(format!("layer below {number} ({})", layer.name()), layer.key.to_hex());
    }
    let wanted = |package: &crate::source::debian::LockedPackage| Wanted { sha256: package.sha256, size: package.size };
    Part {
        name: None,
        ingredients,
        sources: rows.packages.iter().map(wanted).collect(),
        tree: None,
        estimate: rows.packages.iter().map(|package| package.installed_size.saturating_mul(1024)).sum(),
    }
}
