//! Packages made by hand: good ones, and ones that no good tool would make.

#[path = "../../../tests/fixture/package.rs"]
mod package;

use super::{
    LockedPackage,
    deb::{Deb, DebError, Limits, Source, unpack, unpack_all},
    spool::Spool,
};
use crate::layer::tree::{Content, Node, TreePath};
use gap_format::Digest;
use package::{Entry, ar, tar};
use proptest::prelude::*;
use std::{io::Write, num::NonZeroUsize};
use tar::EntryType;

const CONTROL: &str = "Package: a\nVersion: 1\nArchitecture: amd64\nInstalled-Size: 4\n";

fn control() -> Vec<u8> {
    tar(&[
        ("./", EntryType::Directory, "", b""),
        ("./control", EntryType::Regular, "", CONTROL.as_bytes()),
        ("./postinst", EntryType::Regular, "", b"#!/bin/sh\n"),
        ("./conffiles", EntryType::Regular, "", b"/etc/a\nremove-on-upgrade /etc/b\n"),
    ])
}

fn deb(entries: &[Entry<'_>]) -> Vec<u8> {
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control()), ("data.tar", &tar(entries))])
}

fn read(data: &[u8]) -> Result<Deb, DebError> {
    unpack(data, &Spool::new_in(&std::env::temp_dir()).unwrap(), &Limits::default())
}

fn refusal(entries: &[Entry<'_>]) -> String {
    read(&deb(entries)).unwrap_err().to_string()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

#[test]
fn a_package_comes_out_whole() {
    let data = deb(&[
        ("./", EntryType::Directory, "", b""),
        ("./etc/", EntryType::Directory, "", b""),
        ("./etc/a", EntryType::Regular, "", b"hello"),
        ("./etc/hard", EntryType::Link, "./etc/a", b""),
        ("./etc/harder", EntryType::Link, "etc/hard", b""),
        ("./etc/link", EntryType::Symlink, "../usr/x", b""),
        ("./etc/absolute", EntryType::Symlink, "/usr/x", b""),
        ("./dev/disk", EntryType::Block, "", b""),
        ("./dev/pipe", EntryType::Fifo, "", b""),
    ]);
    let deb = read(&data).unwrap();
    assert_eq!(deb.control.get("version"), Some("1"));
    assert_eq!(deb.control_files["postinst"].data, b"#!/bin/sh\n");
    assert_eq!(deb.conffiles().unwrap(), [path("etc/a")]);
    let Some(Node::File { meta, content }) = deb.tree.get(&path("etc/a")) else { panic!() };
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (0o4755, 3, 4, 5));
    assert!(matches!(content, Content::Slice { .. }));
    assert_eq!(content.read().unwrap(), b"hello");
    let Some(Node::HardLink { target }) = deb.tree.get(&path("etc/harder")) else { panic!() };
    assert_eq!(*target, path("etc/a"), "a hard link names the first name");
    assert!(matches!(deb.tree.get(&path("dev/disk")), Some(Node::BlockDevice { device, .. }) if device.major == 8));
    assert!(matches!(deb.tree.get(&path("dev")), Some(Node::Directory { .. })), "implied directories are made");
    assert_eq!(deb.tree.len(), 9);
}

#[test]
fn every_compression_is_read() {
    let data = tar(&[("./f", EntryType::Regular, "", &[7; 5000])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&data).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&data).unwrap();
    for (name, packed) in [
        ("data.tar", data.clone()),
        ("data.tar.gz", gzip.finish().unwrap()),
        ("data.tar.xz", xz.finish().unwrap()),
        ("data.tar.zst", zstd::encode_all(data.as_slice(), 1).unwrap()),
    ] {
        let package = |body: &[u8]| {
            read(&ar(&[("debian-binary", b"2.0\n"), ("_skipped", b"x"), ("control.tar", &control()), (name, body)]))
        };
        assert_eq!(package(&packed).unwrap().tree.len(), 1, "{name}");
        assert!(package(&packed[..packed.len() / 2]).is_err(), "{name} truncated");
        let trailing = [packed.as_slice(), b"junk"].concat();
        assert!(package(&trailing).is_err(), "{name} with trailing bytes");
    }
    assert!(read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control()), ("data.tar.lzma", b"")])).is_err());
}

#[test]
fn names_that_leave_the_tree_are_refused() {
    assert!(refusal(&[("../x", EntryType::Regular, "", b"")]).contains("climbs"));
    assert!(refusal(&[("./a/../../x", EntryType::Regular, "", b"")]).contains("climbs"));
    assert!(refusal(&[("/etc/x", EntryType::Regular, "", b"")]).contains("absolute"));
    assert!(refusal(&[("./", EntryType::Regular, "", b"x")]).contains("kind"));
}

#[test]
fn links_that_lead_out_are_refused() {
    assert!(refusal(&[("./a/l", EntryType::Symlink, "../../x", b"")]).contains("leads out"));
    assert!(refusal(&[("./l", EntryType::Symlink, "/../x", b"")]).contains("leads out"));
    assert!(refusal(&[("./l", EntryType::Symlink, "", b"")]).contains("leads out"));
    assert!(refusal(&[("./l", EntryType::Link, "../x", b"")]).contains("climbs"));
    assert!(refusal(&[("./l", EntryType::Link, "./none", b"")]).contains("no regular file"));
    assert!(refusal(&[("./l", EntryType::Link, "./l", b"")]).contains("no regular file"));
    let through = [("./l", EntryType::Symlink, "etc", b"".as_slice()), ("./l/x", EntryType::Regular, "", b"")];
    assert!(refusal(&through).contains("not a directory"));
    let turned = [("./d/x", EntryType::Regular, "", b"".as_slice()), ("./d", EntryType::Symlink, "etc", b"")];
    assert!(refusal(&turned).contains("twice"));
}

#[test]
fn doubles_and_odd_kinds_are_refused() {
    let twice = [("./a", EntryType::Regular, "", b"1".as_slice()), ("a", EntryType::Regular, "", b"2")];
    assert!(refusal(&twice).contains("/a occurs twice"));
    assert!(read(&deb(&[("./a", EntryType::GNUSparse, "", b"")])).is_err());
    assert!(refusal(&[("./a", EntryType::new(b'V'), "", b"")]).contains("kind"));
    let control_twice = tar(&[
        ("./control", EntryType::Regular, "", CONTROL.as_bytes()),
        ("control", EntryType::Regular, "", CONTROL.as_bytes()),
    ]);
    let members = [("debian-binary", b"2.0\n".as_slice()), ("control.tar", &control_twice), ("data.tar", &[])];
    assert!(read(&ar(&members)).unwrap_err().to_string().contains("twice"));
}

#[test]
fn members_must_be_the_three_in_order() {
    let (control, data) = (control(), tar(&[]));
    let parts = |members: &[(&str, &[u8])]| read(&ar(members)).unwrap_err().to_string();
    let (version, control, data) =
        (("debian-binary", b"2.0\n".as_slice()), ("control.tar", control.as_slice()), ("data.tar", data.as_slice()));
    assert!(read(&ar(&[version, control, data])).is_ok());
    assert!(parts(&[control, version, data]).contains("debian-binary was expected"));
    assert!(parts(&[version, data, control]).contains("control.tar was expected"));
    assert!(parts(&[version, control]).contains("data.tar is missing"));
    assert!(parts(&[version, control, data, data]).contains("follows"));
    assert!(parts(&[("debian-binary", b"3.0\n"), control, data]).contains("3.0"));
    assert!(read(b"!<arch>\n").is_err());
    assert!(read(b"nonsense").is_err());
}

#[test]
fn a_bomb_is_refused() {
    let zeros = vec![0; 90 << 20];
    let data = zstd::encode_all(tar(&[("./f", EntryType::Regular, "", &zeros)]).as_slice(), 1).unwrap();
    let error = read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control()), ("data.tar.zst", &data)]));
    assert!(error.unwrap_err().to_string().contains("more than"), "Installed-Size promises 4 KiB");
    // A long name that claims gigabytes of memory.
    let mut claim = tar::Header::new_gnu();
    claim.set_entry_type(EntryType::GNULongName);
    claim.set_size(4 << 30);
    claim.set_cksum();
    let claimed = [claim.as_bytes().as_slice(), &zeros].concat();
    let data = zstd::encode_all(claimed.as_slice(), 1).unwrap();
    let error = read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control()), ("data.tar.zst", &data)]));
    assert!(error.unwrap_err().to_string().contains("headers are larger"));
}

#[test]
fn every_truncation_is_an_error() {
    let data = deb(&[("./f", EntryType::Regular, "", b"hello")]);
    for len in (0..data.len()).step_by(97) {
        assert!(read(&data[..len]).is_err(), "{len} of {} bytes", data.len());
    }
}

#[test]
fn many_are_unpacked_and_compared_with_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let packages: Vec<(LockedPackage, std::path::PathBuf)> = (0..8_u8)
        .map(|number| {
            let data = deb(&[("./f", EntryType::Regular, "", &[number; 100])]);
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, &data).unwrap();
            (locked("1", &data), path)
        })
        .collect();
    let run = |packages: &[(LockedPackage, std::path::PathBuf)]| {
        let sources: Vec<Source<'_>> = packages.iter().map(|(package, path)| Source { package, path }).collect();
        let spool = Spool::new_in(directory.path()).unwrap();
        unpack_all(&sources, &spool, &Limits::default(), NonZeroUsize::new(3).unwrap())
    };
    for (number, deb) in run(&packages).unwrap().iter().enumerate() {
        let Some(Node::File { content, .. }) = deb.tree.get(&path("f")) else { panic!() };
        assert_eq!(content.read().unwrap(), [number as u8; 100]);
    }
    let mut wrong = packages.clone();
    wrong[3].0.version = "2".to_owned();
    let error = run(&wrong).unwrap_err();
    assert!(
        matches!(&error, DebError::Package { source, .. } if matches!(**source, DebError::Identity { .. })),
        "{error}"
    );
    let mut damaged = packages;
    damaged[5].0.sha256 = Digest::of(b"");
    let error = run(&damaged).unwrap_err();
    assert!(
        matches!(&error, DebError::Package { source, .. } if matches!(**source, DebError::Digest { .. })),
        "{error}"
    );
}

fn locked(version: &str, data: &[u8]) -> LockedPackage {
    LockedPackage {
        name: "a".to_owned(),
        version: version.to_owned(),
        arch: "amd64".to_owned(),
        size: data.len() as u64,
        sha256: Digest::of(data),
        path: "pool/a.deb".to_owned(),
        archive: "debian".to_owned(),
        installed_size: 4,
        order: 0,
        provides: String::new(),
        conflicts: String::new(),
        licenses: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_flipped_byte_gives_an_answer(position in 0_usize..8000, bit in 0_u8..8) {
        let mut data = deb(&[("./d/", EntryType::Directory, "", b""), ("./d/f", EntryType::Regular, "", b"hello")]);
        let position = position % data.len();
        data[position] ^= 1 << bit;
        let _ = read(&data);
    }
}
