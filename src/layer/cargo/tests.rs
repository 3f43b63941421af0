use super::*;
use crate::{
    layer::{
        sandbox::{Sandbox, Scratch},
        tree::{Meta, Node, Tree, TreePath},
    },
    recipe::Workspace,
    source::cargo::{self, Checkout},
    store::Store,
};
use gap_format::Digest;
use std::fs;

fn order_for(workspace: &Path) -> (CargoLayer, LockedCargo) {
    let workspace = Workspace::Directory(workspace.to_owned());
    let toolchain = Toolchain::of_host(&Checkout::of(&workspace, Path::new("/nonexistent")).unwrap()).unwrap();
    let layer = CargoLayer {
        workspace,
        package: "app".to_owned(),
        bin: "app".to_owned(),
        to: TreePath::new("usr/bin/app").unwrap(),
        static_link: false,
        features: Vec::new(),
        build_root: "tools".to_owned(),
    };
    (
        layer,
        LockedCargo { version: None, license: None, sources: Digest::of(b"sources"), toolchain, crates: Vec::new() },
    )
}

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.path().join("src/main.rs"), "fn main() { println!(\"{}\", file!()); }\n").unwrap();
    fs::write(dir.path().join("Cargo.lock"), "version = 4\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n")
        .unwrap();
    dir
}

/// A tree that has everything a build root needs, as empty directories.
fn hollow_root() -> Tree {
    let directory = Node::Directory { meta: Meta::root_owned(0o755, 0), opaque: false };
    let needed = missing(Arch::X86_64, |_| false).into_iter();
    needed.map(|missing| (TreePath::new(missing.path).unwrap(), directory.clone())).collect()
}

/// Tries to build in `root`, with a sandbox that cannot even start.
fn try_build(layer: &CargoLayer, locked: &LockedCargo, root: &Tree) -> BuildError {
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(store_dir.path()).unwrap();
    let order = Order { layer, locked, arch: Arch::X86_64 };
    let sandbox = Sandbox::new(Path::new("/nonexistent/helper"), store_dir.path());
    build(&order, root, &store, &sandbox, Scratch::Memory(1 << 20)).unwrap_err()
}

#[test]
fn what_the_build_root_lacks_is_said_with_the_package_that_has_it() {
    let workspace = workspace();
    let (layer, locked) = order_for(workspace.path());
    let mut root = hollow_root();
    root.remove(&TreePath::new("usr/bin/gcc").unwrap());
    assert_eq!(
        try_build(&layer, &locked, &root).to_string(),
        "the build root `tools` has no `/usr/bin/gcc`; add `gcc` to its `packages`"
    );
}

#[test]
fn another_toolchain_and_edited_sources_are_noticed_before_anything_runs() {
    let (workspace, store_dir) = (workspace(), tempfile::tempdir().unwrap());
    let (layer, mut other) = order_for(workspace.path());
    other.toolchain.commit = "other".to_owned();
    let error = try_build(&layer, &other, &hollow_root());
    assert!(matches!(error, BuildError::Toolchain { .. }), "{error}");

    let store = Store::open(store_dir.path()).unwrap();
    let locked = cargo::resolve(&layer, Arch::X86_64.rust_target(), &store, true).unwrap();
    let error = try_build(&layer, &locked, &hollow_root());
    assert!(matches!(error, BuildError::Failed { .. }), "the sandbox is started: {error}");
    fs::write(workspace.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    let error = try_build(&layer, &locked, &hollow_root());
    assert!(matches!(error, BuildError::Changed { .. }), "{error}");
}
