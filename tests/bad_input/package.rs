//! Packages made by hand: good ones, and ones that no good tool would make.

#[path = "../fixture/package.rs"]
mod bytes;

use super::{archive::Site, assert_says, fixture::fail_with, snapshot};
pub use bytes::Entry;
use bytes::{ar, tar};
use gap_format::Digest;
use std::fs;
use tar::EntryType;

/// A package as a mirror offers it.
pub struct Package {
    name: String,
    /// Further lines of its paragraph in the index.
    more: String,
    pub deb: Vec<u8>,
}

impl Package {
    pub fn new(name: &str, more: &str, deb: &[u8]) -> Self {
        Self { name: name.to_owned(), more: more.to_owned(), deb: deb.to_vec() }
    }

    pub fn path(&self) -> String {
        format!("pool/{}.deb", self.name)
    }

    pub fn paragraph(&self) -> String {
        let Self { name, more, deb } = self;
        format!(
            "Package: {name}\nVersion: 1\nArchitecture: amd64\nSize: {}\nInstalled-Size: 1\n{more}Filename: {}\nSHA256: {}\n\n",
            deb.len(),
            self.path(),
            Digest::of(deb).to_hex()
        )
    }
}

/// A package with these files.
pub fn deb(name: &str, entries: &[Entry<'_>]) -> Vec<u8> {
    packed(name, "data.tar", &tar(entries))
}

fn packed(name: &str, member: &str, data: &[u8]) -> Vec<u8> {
    let text = format!("Package: {name}\nVersion: 1\nArchitecture: amd64\nInstalled-Size: 1\n");
    let control = tar(&[("./control", EntryType::Regular, "", text.as_bytes())]);
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (member, data)])
}

/// The package has the digest that the archive signed, and is refused all the same.
#[track_caller]
fn refused(deb: &[u8], all: &[&str]) {
    let site = Site::asking_for("\"evil\"");
    site.publish(&[Package::new("evil", "", deb)]);
    let outside = site.project.path().parent().unwrap().join("evil-was-here");
    let before = snapshot(site.project.path());
    let said = fail_with(1, &mut site.command("lock"));
    assert_says(&said, all);
    let said = fail_with(1, &mut site.command("build"));
    assert_says(&said, all);
    assert_eq!(snapshot(site.project.path()), before);
    assert!(!outside.exists() && !fs::exists("/evil-was-here").unwrap());
}

#[test]
fn names_that_leave_the_tree_are_refused() {
    for (name, reason) in [("../../../evil-was-here", "climbs"), ("/evil-was-here", "absolute")] {
        refused(&deb("evil", &[(name, EntryType::Regular, "", b"x")]), &["evil", reason]);
    }
}

#[test]
fn links_that_lead_out_are_refused() {
    refused(&deb("evil", &[("./etc/l", EntryType::Symlink, "../../../etc", b"")]), &["evil", "leads out"]);
    refused(&deb("evil", &[("./l", EntryType::Link, "../../etc/passwd", b"")]), &["evil", "climbs"]);
    let through: [Entry<'_>; 2] =
        [("./l", EntryType::Symlink, "/", b""), ("./l/evil-was-here", EntryType::Regular, "", b"")];
    refused(&deb("evil", &through), &["evil", "not a directory"]);
}

#[test]
fn a_bomb_is_refused() {
    let zeros = vec![0; 90 << 20];
    let data = zstd::encode_all(tar(&[("./f", EntryType::Regular, "", &zeros)]).as_slice(), 1).unwrap();
    refused(&packed("evil", "data.tar.zst", &data), &["evil", "more than"]);
}

#[test]
fn a_package_that_is_another_or_none_at_all_is_refused() {
    refused(&deb("good", &[]), &["evil", "good"]);
    refused(b"<html>please log in</html>", &["evil"]);
}
