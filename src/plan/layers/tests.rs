use super::*;
use crate::{
    layer::tree::TreePath,
    recipe::{FileItem, FilesLayer, Workspace},
    source::cargo::{LockedCrate, Toolchain},
};
use std::os::unix::fs::PermissionsExt;

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
    (layer, LockedCargo { sources: Digest::of(b"sources"), toolchain, crates: Vec::new() })
}

#[test]
fn everything_that_makes_a_binary_is_in_the_key() {
    let (layer, locked) = program();
    let root = LayerKey::from(Digest::of(b"root"));
    let key = |layer: &CargoLayer, locked: &LockedCargo, root| cargo(layer, locked, Some(root)).key();
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

fn key_of_site(base: &Path) -> LayerKey {
    let item = FileItem { base: base.to_owned(), path: "site".to_owned(), to: "/x".to_owned(), mode: None };
    files(&files_tree(&FilesLayer { items: vec![item] }).unwrap()).key()
}

#[test]
fn the_key_of_files_is_that_of_names_contents_and_executable_bits_not_of_the_checkout() {
    let site = || {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("site")).unwrap();
        fs::write(base.path().join("site/motd"), "hello").unwrap();
        base
    };
    let (one, two) = (site(), site());
    let motd = two.path().join("site/motd");
    let mode = |bits| fs::set_permissions(&motd, PermissionsExt::from_mode(bits)).unwrap();
    mode(0o664);
    assert_eq!(key_of_site(one.path()), key_of_site(two.path()));
    fs::write(&motd, "hellO").unwrap();
    assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
    fs::write(&motd, "hello").unwrap();
    assert_eq!(key_of_site(one.path()), key_of_site(two.path()));
    mode(0o744);
    assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
    mode(0o644);
    fs::rename(&motd, two.path().join("site/issue")).unwrap();
    assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
}
