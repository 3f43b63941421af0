//! A binary of a Cargo workspace: a layer of one part.

use super::{Ingredients, part::Part};
use crate::{recipe::CargoLayer, source::cargo::LockedCargo, store::LayerKey};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;
/// What a binary and its debug leftovers come to at most, in bytes.
const ESTIMATE: u64 = 64 << 20;

/// The part that is built in the tree of the layers with the keys `build_root`.
pub(super) fn part(layer: &CargoLayer, rows: &LockedCargo, build_root: impl Iterator<Item = LayerKey>) -> Part {
    let mut ingredients = Ingredients::new("cargo", FORMAT);
    ingredients.add("package", layer.package.clone());
    ingredients.add("binary", layer.bin.clone());
    ingredients.add("destination", layer.to.to_string());
    ingredients.add("static", layer.static_link.to_string());
    ingredients.add("features", layer.features.join(","));
    ingredients.add("sources", rows.sources.to_string());
    ingredients.add("toolchain", format!("{:?}", rows.toolchain));
    let root: Vec<String> = build_root.map(LayerKey::to_hex).collect();
    ingredients.add("build root", root.join(" "));
    for row in &rows.crates {
        ingredients.add(format!("crate {} {}", row.name, row.version), row.sha256.to_string());
    }
    Part { name: None, ingredients, sources: Vec::new(), tree: None, estimate: ESTIMATE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layer::tree::TreePath,
        recipe::Workspace,
        source::cargo::{LockedCrate, Toolchain},
    };
    use gap_format::Digest;

    fn program() -> (CargoLayer, LockedCargo) {
        let layer = CargoLayer {
            workspace: Workspace::Builtin,
            package: "app".to_owned(),
            bin: "app".to_owned(),
            to: TreePath::new("usr/bin/app").unwrap(),
            static_link: false,
            features: Vec::new(),
            build_root: "tools".to_owned(),
        };
        let toolchain = Toolchain { rustc: "1".to_owned(), commit: "c".to_owned(), host: "h".to_owned() };
        (
            layer,
            LockedCargo {
                version: None,
                license: None,
                sources: Digest::of(b"sources"),
                toolchain,
                crates: Vec::new(),
            },
        )
    }

    #[test]
    fn everything_that_makes_a_binary_is_in_the_key() {
        let (layer, locked) = program();
        let root = LayerKey::from(Digest::of(b"root"));
        let key =
            |layer: &CargoLayer, locked: &LockedCargo, root| part(layer, locked, [root].into_iter()).ingredients.key();
        let before = key(&layer, &locked, root);
        let elsewhere = Workspace::Directory("/elsewhere".into());
        let elsewhere = CargoLayer { workspace: elsewhere, build_root: "other".to_owned(), ..layer.clone() };
        assert_eq!(key(&elsewhere, &locked, root), before, "neither the workspace nor a name counts");
        let row = LockedCrate {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: Digest::of(b"a"),
            size: 1,
            license: None,
            used: true,
        };
        let toolchain = Toolchain { commit: "d".to_owned(), ..locked.toolchain.clone() };
        for other in [
            key(&CargoLayer { package: "b".to_owned(), ..layer.clone() }, &locked, root),
            key(&CargoLayer { bin: "b".to_owned(), ..layer.clone() }, &locked, root),
            key(&CargoLayer { static_link: true, ..layer.clone() }, &locked, root),
            key(&CargoLayer { features: vec!["x".to_owned()], ..layer.clone() }, &locked, root),
            key(&CargoLayer { to: TreePath::new("app").unwrap(), ..layer.clone() }, &locked, root),
            key(&layer, &LockedCargo { sources: Digest::of(b"x"), ..locked.clone() }, root),
            key(&layer, &LockedCargo { toolchain, ..locked.clone() }, root),
            key(&layer, &LockedCargo { crates: vec![row], ..locked.clone() }, root),
            key(&layer, &locked, LayerKey::from(Digest::of(b"other root"))),
        ] {
            assert_ne!(other, before);
        }
    }
}
