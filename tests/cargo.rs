//! A real binary, built in the sandbox from a real build root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use gap_format::Digest;
use gapimage::{
    layer::{
        cargo::{Order, build},
        sandbox::{Sandbox, Scratch},
        tree::{Node, TreePath},
    },
    recipe::{Arch, CargoLayer, Workspace},
    source::{cargo, files},
    store::Store,
};
use std::{env, fs, path::Path};

/// `BUILD_ROOT`: a directory with an unpacked Debian root that has base-files, gcc and libc6-dev. `WORKSPACE`,
/// `PACKAGE`, `BIN`: what to build; `STATIC`: whether statically. `STORE`: the store. `OUT`: where the binary goes, to
/// be compared with that of another directory, user, machine.
#[test]
#[ignore = "compiles for minutes, and needs a build root"]
fn a_real_binary() {
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let store = Store::open(Path::new(&var("STORE"))).unwrap();
    let layer = CargoLayer {
        workspace: Workspace::Directory(var("WORKSPACE").into()),
        package: var("PACKAGE"),
        bin: var("BIN"),
        to: TreePath::new("usr/bin/program").unwrap(),
        static_link: env::var_os("STATIC").is_some(),
        features: Vec::new(),
        build_root: "tools".to_owned(),
    };
    let locked = cargo::resolve(&layer, Arch::X86_64.rust_target(), &store, false).unwrap();
    println!("{} crates, {} used", locked.crates.len(), locked.crates.iter().filter(|row| row.used).count());
    let order = Order { layer: &layer, locked: &locked, arch: Arch::X86_64 };
    let base = var("BUILD_ROOT");
    let request =
        files::Request { base: Path::new(&base), path: Path::new("."), to: "/", mode: None, uid: 0, gid: 0, mtime: 0 };
    let root = files::collect(&request).unwrap();
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), store.session_dir());
    let tree = build(&order, &root, &store, &sandbox, Scratch::Memory(6 << 30)).unwrap();
    let Some(Node::File { content, .. }) = tree.get(&layer.to) else { panic!("no file") };
    let bytes = content.read().unwrap();
    println!("{} bytes, {}", bytes.len(), Digest::of(&bytes));
    fs::write(var("OUT"), bytes).unwrap();
}
