use super::*;
use crate::{
    recipe::Arch,
    source::wheels::{LockedWheel, archive::ArchiveError},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use gap_format::Digest;
use rawzip::path::EntryPath;
use sha2::Digest as _;
use std::io::Write;

/// A row that says as little as possible.
pub(super) fn row(name: &str) -> LockedWheel {
    toml::from_str(&format!(
        "name = \"{name}\"\nversion = \"1.0\"\nfile = \"{name}-1.0-py3-none-any.whl\"\nsize = 1\ninstalled-size = 1\n\
         sha256 = \"{}\"",
        Digest::of(name.as_bytes())
    ))
    .unwrap()
}

fn target() -> Target {
    Target { python: "3.13.5".parse().unwrap(), glibc: "2.41".parse().unwrap(), arch: Arch::X86_64 }
}

fn scheme() -> Scheme {
    Scheme::new(target().python, None).unwrap()
}

/// A wheel to be: members with their modes, in order.
#[derive(Clone)]
struct Wheel {
    name: &'static str,
    members: Vec<(String, Vec<u8>, u32)>,
    tag: &'static str,
    metadata: String,
    /// Appended to `RECORD`.
    recorded: String,
    unrecorded: Vec<&'static str>,
}

impl Wheel {
    fn new(name: &'static str, files: &[(&str, &str)]) -> Self {
        let members =
            files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec(), 0o100_644)).collect();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
        Self { name, members, tag: "py3-none-any", metadata, recorded: String::new(), unrecorded: Vec::new() }
    }

    fn with(mut self, path: &str, data: &[u8], mode: u32) -> Self {
        self.members.push((path.to_owned(), data.to_vec(), mode));
        self
    }

    fn zip(&self) -> Vec<u8> {
        let info = format!("{}-1.0.dist-info", self.name);
        let mut members = self.members.clone();
        members.push((format!("{info}/METADATA"), self.metadata.clone().into_bytes(), 0o100_644));
        let wheel = format!("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {}\n", self.tag);
        members.push((format!("{info}/WHEEL"), wheel.into_bytes(), 0o100_644));
        let mut record = self.recorded.clone();
        for (path, data, _) in members.iter().filter(|(path, ..)| !self.unrecorded.contains(&path.as_str())) {
            let digest = BASE64_URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(data));
            record.push_str(&format!("{path},sha256={digest},{}\n", data.len()));
        }
        record.push_str(&format!("{info}/RECORD,,\n"));
        members.push((format!("{info}/RECORD"), record.into_bytes(), 0o100_644));
        let mut zip = rawzip::ZipArchiveWriter::new(Vec::new());
        for (path, data, mode) in &members {
            let file = zip.new_file(EntryPath::verbatim(path.as_bytes())).unix_permissions(*mode);
            let (mut entry, config) = file.compression_method(rawzip::CompressionMethod::DEFLATE).start().unwrap();
            let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
            let mut writer = config.wrap(encoder);
            writer.write_all(data).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
        zip.finish().unwrap()
    }

    /// The row of these bytes, which go into the store.
    fn row_of(&self, bytes: &[u8], store: &Store) -> LockedWheel {
        let stored = store.insert_source(None, 1 << 30, bytes).unwrap();
        LockedWheel { sha256: stored.digest, size: stored.size, ..row(self.name) }
    }
}

fn in_store<T>(work: impl FnOnce(&Store) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    work(&Store::open(dir.path()).unwrap())
}

fn installed(wheels: &[Wheel]) -> Result<Tree, InstallError> {
    in_store(|store| {
        let rows: Vec<LockedWheel> = wheels.iter().map(|wheel| wheel.row_of(&wheel.zip(), store)).collect();
        install(&rows.iter().collect::<Vec<_>>(), &target(), &scheme(), store, None)
    })
}

/// Why this archive, as the wheel `a`, is refused.
fn refused_bytes(bytes: &[u8]) -> WheelError {
    in_store(|store| {
        let row = Wheel::new("a", &[]).row_of(bytes, store);
        match install(&[&row], &target(), &scheme(), store, None).and_then(|tree| unpacked(&tree)) {
            Err(InstallError::Wheel { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    })
}

/// Reads all files, which are compared with what vouches for them then.
fn unpacked(tree: &Tree) -> Result<(), InstallError> {
    for (_, node) in tree.iter() {
        if let Node::File { content, .. } = node {
            content.read().map_err(|error| *error.into_inner().unwrap().downcast::<InstallError>().unwrap())?;
        }
    }
    Ok(())
}

fn refused(wheel: &Wheel) -> WheelError {
    refused_bytes(&wheel.zip())
}

fn text(tree: &Tree, path: &str) -> String {
    match tree.get(&TreePath::new(path).unwrap()) {
        Some(Node::File { content, .. }) => String::from_utf8(content.read().unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn mode(tree: &Tree, path: &str) -> u32 {
    tree.get(&TreePath::new(path).unwrap()).and_then(Node::meta).unwrap().mode
}

const SITE: &str = "/usr/local/lib/python3.13/dist-packages";

#[test]
fn every_part_of_a_wheel_goes_where_pip_puts_it() {
    let wheel = Wheel::new(
        "a",
        &[("a/__init__.py", "x = 1\n"), ("a-1.0.data/purelib/b.py", ""), ("a-1.0.data/headers/a.h", "h")],
    )
    .with("a-1.0.data/scripts/run", b"#!pythonw -s\nprint()\n", 0o100_644)
    .with("a-1.0.data/data/share/a.txt", b"d", 0o100_644)
    .with("a/tool.sh", b"#!/bin/sh\n", 0o100_755)
    .with("a-1.0.dist-info/entry_points.txt", b"[console_scripts]\nhello = a:main\n", 0o100_644)
    .with("a-1.0.dist-info/INSTALLER", b"other", 0o100_644);
    let tree = installed(&[wheel]).unwrap();
    assert_eq!(text(&tree, &format!("{SITE}/a/__init__.py")), "x = 1\n");
    assert_eq!(text(&tree, &format!("{SITE}/b.py")), "");
    assert_eq!(text(&tree, "/usr/local/include/python3.13/a/a.h"), "h");
    assert_eq!(text(&tree, "/usr/local/bin/run"), "#!/usr/bin/python3.13 -s\nprint()\n");
    assert_eq!(text(&tree, "/usr/local/share/a.txt"), "d");
    assert_eq!(text(&tree, &format!("{SITE}/a-1.0.dist-info/INSTALLER")), "gapimage\n");
    assert!(text(&tree, "/usr/local/bin/hello").contains("from a import main\n"));
    assert_eq!(mode(&tree, "/usr/local/bin/run"), 0o755);
    assert_eq!(mode(&tree, &format!("{SITE}/a/tool.sh")), 0o755);
    assert_eq!(mode(&tree, &format!("{SITE}/a/__init__.py")), 0o644);
    assert!(tree.get(&TreePath::new("/usr/local").unwrap()).is_none(), "that directory is Debian's");
    let record = text(&tree, &format!("{SITE}/a-1.0.dist-info/RECORD"));
    let lines: Vec<&str> = record.lines().collect();
    assert!(lines.is_sorted(), "{record}");
    assert!(lines.iter().any(|line| line.starts_with("../../../bin/run,sha256=")), "{record}");
    assert!(lines.contains(&"a-1.0.dist-info/RECORD,,"));
    assert_eq!(lines.len(), 12);
}

#[test]
fn only_what_was_asked_for_is_marked_as_requested() {
    in_store(|store| {
        let wheel = Wheel::new("a", &[]);
        let row = LockedWheel { requested: true, ..wheel.row_of(&wheel.zip(), store) };
        let tree = install(&[&row], &target(), &scheme(), store, None).unwrap();
        assert_eq!(text(&tree, &format!("{SITE}/a-1.0.dist-info/REQUESTED")), "");
    });
    let marker = TreePath::new(format!("{SITE}/a-1.0.dist-info/REQUESTED")).unwrap();
    assert!(installed(&[Wheel::new("a", &[])]).unwrap().get(&marker).is_none());
}

#[test]
fn names_that_leave_the_wheel_are_refused() {
    for path in ["../x.py", "/x.py", "a/../../x.py", "a//b.py", "./a.py", "C:\\x.py", "a\\..\\x.py", "a\nb.py", ""] {
        let error = refused(&Wheel::new("a", &[(path, "x")]));
        assert!(matches!(error, WheelError::Archive(ArchiveError::Name { .. })), "{path}: {error}");
    }
}

#[test]
fn links_and_devices_are_refused() {
    for mode in [0o120_777, 0o020_644, 0o010_644, 0o060_644] {
        let error = refused(&Wheel::new("a", &[]).with("x", b"/etc/passwd", mode));
        assert!(matches!(error, WheelError::Archive(ArchiveError::Kind { .. })), "{mode:o}: {error}");
    }
}

#[test]
fn a_name_twice_is_refused() {
    for second in ["a/x", "a", "a/x/y"] {
        let error = refused(&Wheel::new("a", &[("a/x", "1"), (second, "2")]));
        assert!(matches!(error, WheelError::Archive(ArchiveError::Twice(_))), "{second}: {error}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_unpacks() {
    let bytes = Wheel::new("a", &[("a/x", "1")]).zip();
    // The uncompressed size stands in the last central directory entry but three, at offset 24 of it.
    let signature = [0x50, 0x4b, 1, 2];
    let at = bytes.windows(4).position(|window| window == signature).unwrap();
    let mut lying = bytes;
    lying[at + 24..at + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let error = refused_bytes(&lying);
    assert!(matches!(error, WheelError::Archive(ArchiveError::Bomb(_))), "{error}");
}

#[test]
fn an_archive_with_more_than_its_members_is_refused() {
    let good = Wheel::new("a", &[("a/x", "1")]).zip();
    let after = [good.as_slice(), b"more"].concat();
    assert!(matches!(refused_bytes(&after), WheelError::Archive(_)));
    let before = [b"#!/bin/sh\n", good.as_slice()].concat();
    assert!(
        matches!(refused_bytes(&before), WheelError::Archive(ArchiveError::Layout(_))),
        "{}",
        refused_bytes(&before)
    );
    let mut two_names = good.clone();
    let at = two_names.windows(3).position(|window| window == b"a/x").unwrap();
    two_names[at] = b'b';
    assert!(matches!(refused_bytes(&two_names), WheelError::Archive(ArchiveError::Layout(_))));
    let mut cut = good;
    cut.truncate(cut.len() / 2);
    assert!(matches!(refused_bytes(&cut), WheelError::Archive(ArchiveError::Zip(_))));
}

#[test]
fn damaged_contents_are_refused() {
    let wheel = Wheel { members: vec![("a/x".to_owned(), vec![7; 5000], 0o100_644)], ..Wheel::new("a", &[]) };
    let mut bytes = wheel.zip();
    // The first byte of the first member's data.
    bytes[30 + 3] ^= 0x10;
    let error = refused_bytes(&bytes);
    assert!(matches!(error, WheelError::Archive(_) | WheelError::Changed(_)), "{error}");
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    let wheel = Wheel::new("a", &[("a/x", "1")]);
    let unrecorded = refused(&Wheel { unrecorded: vec!["a/x"], ..wheel.clone() });
    assert!(matches!(unrecorded, WheelError::Unrecorded { .. }), "{unrecorded}");
    let gone = refused(&Wheel { recorded: "a/gone,sha256=x,1\n".to_owned(), ..wheel.clone() });
    assert!(matches!(gone, WheelError::Unrecorded { .. }), "{gone}");
    let zeros = BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
    for line in [format!("a/x,sha256={zeros},1\n"), format!("a/x,sha256={zeros},\n"), "a/x,,1\n".to_owned()] {
        let error = refused(&Wheel { unrecorded: vec!["a/x"], recorded: line.clone(), ..wheel.clone() });
        assert!(matches!(error, WheelError::Changed(_) | WheelError::Unrecorded { .. }), "{line}: {error}");
    }
    let weak = refused(&Wheel { unrecorded: vec!["a/x"], recorded: "a/x,md5=abc,1\n".to_owned(), ..wheel });
    assert!(matches!(weak, WheelError::Record(RecordError::Digest { .. })), "{weak}");
}

#[test]
fn a_wheel_for_something_else_is_refused() {
    let error = refused(&Wheel { tag: "cp313-cp313-win_amd64", ..Wheel::new("a", &[]) });
    assert!(error.to_string().contains("win_amd64"), "{error}");
    assert!(matches!(error, WheelError::OtherPlatform { .. }));
}

#[test]
fn a_wheel_that_is_not_as_it_was_locked_is_refused() {
    for metadata in [
        "Name: b\nVersion: 1.0\n",
        "Name: a\nVersion: 1.1\n",
        "Name: a\nVersion: 1.0\nLicense-Expression: GPL-3.0-only\n",
    ] {
        let error = refused(&Wheel { metadata: metadata.to_owned(), ..Wheel::new("a", &[]) });
        assert!(matches!(error, WheelError::NotAsLocked { .. }), "{metadata}: {error}");
    }
    in_store(|store| {
        let wheel = Wheel::new("a", &[]);
        let row = LockedWheel { requires: vec!["b>=2".to_owned()], ..wheel.row_of(&wheel.zip(), store) };
        let error = install(&[&row], &target(), &scheme(), store, None).unwrap_err();
        assert!(error.to_string().contains("b>=2"), "{error}");
    });
}

#[test]
fn parts_that_are_not_known_are_refused() {
    for path in ["a-1.0.data/other/x", "a-1.0.data/x", "a-1.0.data/scripts/sub/x"] {
        let error = refused(&Wheel::new("a", &[(path, "x")]));
        assert!(matches!(error, WheelError::Part(_)), "{path}: {error}");
    }
}

#[test]
fn of_two_wheels_with_one_file_the_later_name_wins() {
    let wheels = [Wheel::new("a", &[("shared.py", "a")]), Wheel::new("b", &[("shared.py", "b")])];
    assert_eq!(text(&installed(&wheels).unwrap(), &format!("{SITE}/shared.py")), "b");
    let clash = [Wheel::new("a", &[("shared", "a")]), Wheel::new("b", &[("shared/x.py", "b")])];
    assert!(matches!(installed(&clash), Err(InstallError::Clash { .. })));
}

#[test]
fn a_wheel_that_is_not_in_the_store_is_named() {
    in_store(|store| {
        let error = install(&[&row("a")], &target(), &scheme(), store, None).unwrap_err();
        assert!(error.to_string().contains("a-1.0-py3-none-any.whl"), "{error}");
    });
}

#[test]
fn the_wheelhouse_has_an_index_with_digests() {
    in_store(|store| {
        let rows = [row("a"), row("b")];
        let tree = wheelhouse(&rows.iter().collect::<Vec<_>>(), store).unwrap();
        assert!(tree.get(&TreePath::new("/opt/wheelhouse/a-1.0-py3-none-any.whl").unwrap()).is_some());
        let index = wheelhouse_index(&rows).unwrap();
        let page = text(&index, "/opt/wheelhouse/simple/b/index.html");
        let link = format!("href=\"../../b-1.0-py3-none-any.whl#sha256={}\"", rows[1].sha256.to_hex());
        assert!(page.contains(&link), "{page}");
        assert!(text(&index, "/opt/wheelhouse/requirements.txt").starts_with("a==1.0 --hash=sha256:"));
    });
}

#[test]
fn an_environment_is_one_to_python() {
    let scheme = Scheme::new(target().python, Some(&TreePath::new("/opt/train").unwrap())).unwrap();
    let tree = environment(&target(), &scheme).unwrap();
    assert!(text(&tree, "/opt/train/pyvenv.cfg").contains("version = 3.13.5\n"));
    assert!(matches!(tree.get(&TreePath::new("/opt/train/bin/python").unwrap()), Some(Node::Symlink { .. })));
}
