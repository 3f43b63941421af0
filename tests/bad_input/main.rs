//! What bad input gets, through the command line: a clear reason, the right exit code, nothing lost, nothing half-written.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod archive;
mod artifact;
#[path = "../fixture/mod.rs"]
mod fixture;
mod full_disk;
mod interrupted;
#[expect(dead_code, reason = "these tests need some of the keys only")]
#[path = "../debian_archive/keys.rs"]
mod keys;
mod package;
mod recipe;
#[expect(dead_code, reason = "these tests need some of the misbehaviours only")]
#[path = "../debian_archive/server.rs"]
mod server;
mod trust;

use std::{collections::BTreeMap, fs, path::Path};

/// Whether a message says this, however it was broken into lines and framed.
fn says(said: &str, what: &str) -> bool {
    let bare = |text: &str| -> String {
        text.chars().filter(|c| !c.is_whitespace() && !"│×╰╭─▶├·".contains(*c)).collect()
    };
    bare(said).contains(&bare(what))
}

/// Fails unless the message says all of it.
#[track_caller]
fn assert_says(said: &str, all: &[&str]) {
    for what in all {
        assert!(says(said, what), "it does not say {what:?}:\n{said}");
    }
}

/// Everything below a directory but the store: what a command that failed must leave as it was.
fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match path.is_dir() {
                true if name == "store" => {}
                true => open.push(path),
                false => drop(found.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    found
}
