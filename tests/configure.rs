//! Real packages, configured. Needs a directory of `.deb` files whose names sort in the order of
//! installation, essential ones included, in `GAPIMAGE_TEST_DEBS`; run with `--ignored`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]

use gapimage::{
    layer::{
        configure::{Installation, PackageInput, Workplace, configured, unconfigured},
        sandbox::Sandbox,
        stack::Stack,
        tar::TarPlan,
        tree::{Node, Tree, TreePath},
    },
    source::debian::{
        deb::{Limits, unpack},
        spool::Spool,
    },
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const DATE: i64 = 1_780_000_000;

fn packages(spool: &Spool) -> Vec<PackageInput> {
    let directory = std::env::var_os("GAPIMAGE_TEST_DEBS").unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let packages =
        files.iter().map(|file| unpack(File::open(file).unwrap(), spool, &Limits::default()).unwrap().into());
    packages.collect()
}

fn layer(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    TarPlan::new(tree).unwrap().write(&mut out).unwrap();
    out
}

fn configure(lower: &Tree, packages: &[PackageInput]) -> Tree {
    let spool = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_gapimage")), spool.path());
    let workplace = Workplace { sandbox: &sandbox, scratch: scratch.path(), time_limit: Duration::from_secs(300) };
    configured(&Installation { lower, packages, source_date: DATE }, &workplace)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A layer over another ends as both in one do, as far as dpkg and the linker see it.
#[test]
#[ignore = "needs packages"]
fn a_second_layer_goes_over_the_first() {
    let spooled = tempfile::tempdir().unwrap();
    let packages = packages(&Spool::new_in(spooled.path()).unwrap());
    let (below, above) = packages.split_at(packages.len() - 12);
    let lower = configure(&Tree::new(), below);
    let upper = configure(&lower, above);
    let mut stack = Stack::new(&lower).unwrap();
    stack.apply(&upper).unwrap();
    let whole = configure(&Tree::new(), &packages);
    let text = |tree: &Tree, raw: &str| match tree.get(&TreePath::new(raw).unwrap()).unwrap() {
        Node::File { content, .. } => content.read().unwrap(),
        other => panic!("{raw}: {other:?}"),
    };
    for raw in ["var/lib/dpkg/status", "etc/ld.so.cache", "etc/ssl/certs/ca-certificates.crt"] {
        assert!(text(stack.tree(), raw) == text(&whole, raw), "{raw}");
    }
    assert!(upper.get(&TreePath::new("usr/bin/dpkg").unwrap()).is_none(), "the upper layer repeats the lower one");
}

#[test]
#[ignore = "needs packages"]
fn two_runs_give_the_same_bytes() {
    let spooled = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let packages = packages(&Spool::new_in(spooled.path()).unwrap());
    eprintln!("unpacked {} packages in {:.2?}", packages.len(), start.elapsed());
    let start = Instant::now();
    let first = configure(&Tree::new(), &packages);
    eprintln!("configured them in {:.2?}", start.elapsed());
    let start = Instant::now();
    let first = layer(&first);
    eprintln!("wrote {} bytes in {:.2?}", first.len(), start.elapsed());
    let start = Instant::now();
    let plain = unconfigured(&Installation { lower: &Tree::new(), packages: &packages, source_date: DATE }).unwrap();
    eprintln!("without scripts: {} nodes in {:.2?}", plain.len(), start.elapsed());
    if let Some(keep) = std::env::var_os("GAPIMAGE_TEST_KEEP") {
        std::fs::write(keep, &first).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    let second = layer(&configure(&Tree::new(), &packages));
    if let Some(keep) = std::env::var_os("GAPIMAGE_TEST_KEEP_SECOND") {
        std::fs::write(keep, &second).unwrap();
    }
    assert!(first == second, "the second run gave other bytes");
}
