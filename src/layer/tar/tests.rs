//! The layer as a whole: what is written is found again, other tools read it, and nothing else
//! passes for a layer.

use super::*;
use crate::layer::tree::{Content, Device, Meta, Node, Tree, TreePath};
use gap_format::ReadAt;
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

fn path(raw: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(raw).unwrap()
}

fn meta(mode: u32) -> Meta {
    Meta { mode, uid: 3, gid: 70_000, mtime: 1_700_000_001, xattrs: BTreeMap::new() }
}

fn directory(mode: u32) -> Node {
    Node::Directory { meta: meta(mode), opaque: false }
}

fn file(data: impl Into<Arc<[u8]>>) -> Node {
    Node::File { meta: meta(0o640), content: Content::bytes(data) }
}

fn written(plan: &TarPlan) -> Vec<u8> {
    let mut out = Vec::new();
    plan.write(&mut out).unwrap();
    assert_eq!(out.len() as u64, plan.size());
    out
}

/// Everything a layer can hold, save removals.
fn specimen() -> Tree {
    let long = "directory/".repeat(12);
    let mut capable = meta(0o755);
    capable.xattrs.insert(b"security.capability".to_vec(), [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat());
    capable.xattrs.insert(b"user.binary".to_vec(), b"a\0b\nc=d".to_vec());
    let mut tree = Tree::new();
    tree.insert(path(""), directory(0o751));
    tree.insert(path("empty"), file([]));
    tree.insert(path("small"), file(*b"small\n"));
    tree.insert(path("page"), file([b'p'; 4096]));
    tree.insert(path("pages"), file([b'q'; 10_000]));
    tree.insert(path("z-target"), file([b'z'; 5000]));
    tree.insert(path("a-link"), Node::HardLink { target: path("z-target") });
    tree.insert(path("zz-link"), Node::HardLink { target: path("z-target") });
    tree.insert(path("capable"), Node::File { meta: capable, content: Content::bytes([b'c'; 8192]) });
    tree.insert(path("symlink"), Node::Symlink { meta: meta(0o777), target: b"../small".to_vec() });
    let target = "t/".repeat(200).into_bytes();
    tree.insert(path("long-symlink"), Node::Symlink { meta: meta(0o777), target });
    tree.insert(path("fifo"), Node::Fifo { meta: meta(0o600) });
    tree.insert(path("null"), Node::CharDevice { meta: meta(0o666), device: Device { major: 1, minor: 3 } });
    tree.insert(path("sda"), Node::BlockDevice { meta: meta(0o660), device: Device { major: 8, minor: 0x1_2345 } });
    tree.insert(path(b"latin-\xe9"), file(*b"one byte, not UTF-8"));
    for (end, _) in long.match_indices('/') {
        tree.insert(path(&long[..end]), directory(0o755));
    }
    tree.insert(path(format!("{long}file")), file([b'l'; 4097]));
    tree.insert(path([long.as_bytes(), b"\xff\xfe"].concat()), file(*b"long and not UTF-8"));
    tree.insert(path("ünï"), file(*b"UTF-8"));
    tree.insert(path("suid"), Node::File { meta: meta(0o4755), content: Content::bytes(*b"s") });
    tree
}

#[test]
fn every_kind_is_found_again() {
    let mut tree = specimen();
    tree.insert(path("opaque"), Node::Directory { meta: meta(0o755), opaque: true });
    tree.insert(path("opaque/kept"), file(*b"k"));
    tree.insert(path("directory/gone"), Node::Whiteout);
    let plan = TarPlan::new(&tree).unwrap();
    let tar = written(&plan);
    let index = read_index(&tar, tar.len() as u64).unwrap();
    assert_eq!(index, plan.index());
    let mut spooled = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut spooled, &tar).unwrap();
    let again = index.to_tree(&Arc::new(spooled), 0);
    assert_eq!(written(&TarPlan::new(&again).unwrap()), tar);
    let large = index.entries.iter().filter(|entry| matches!(entry.kind, IndexKind::File { len: BLOCK.., .. }));
    for entry in large {
        let IndexKind::File { offset, len } = entry.kind else { unreachable!() };
        assert_eq!(offset % BLOCK, 0, "{}", entry.path);
        let first = tar[usize::try_from(offset).unwrap()];
        let last = tar[usize::try_from(offset + len).unwrap() - 1];
        assert!(first == last && first != 0, "{}", entry.path);
    }
}

#[test]
fn a_layer_that_is_not_written_gives_the_contents_of_its_files() {
    let plan = TarPlan::new(&specimen()).unwrap();
    let layer = written(&plan);
    for entry in plan.index().entries {
        let IndexKind::File { offset, len } = entry.kind else { continue };
        let mut data = vec![0; len as usize];
        ReadAt::read_exact_at(&plan, &mut data, offset).unwrap();
        assert_eq!(data, layer[offset as usize..][..len as usize], "{}", entry.path);
        if len > 2 {
            let mut middle = vec![0; len as usize - 2];
            ReadAt::read_exact_at(&plan, &mut middle, offset + 1).unwrap();
            assert_eq!(middle, data[1..data.len() - 1]);
        }
        let mut more = vec![0; len as usize + 1];
        assert!(ReadAt::read_exact_at(&plan, &mut more, offset).is_err(), "{} and what follows it", entry.path);
    }
    assert!(ReadAt::read_exact_at(&plan, &mut [0], 0).is_err());
}

#[test]
fn the_first_name_of_a_file_is_the_file() {
    let tar = written(&TarPlan::new(&specimen()).unwrap());
    let index = read_index(&tar, tar.len() as u64).unwrap();
    let kind = |name| &index.entries.iter().find(|entry| entry.path == path(name)).unwrap().kind;
    assert!(matches!(kind("a-link"), IndexKind::File { len: 5000, .. }));
    assert_eq!(kind("z-target"), &IndexKind::HardLink(path("a-link")));
    assert_eq!(kind("zz-link"), &IndexKind::HardLink(path("a-link")));
}

#[test]
fn an_empty_tree_is_two_blocks() {
    let tar = written(&TarPlan::new(&Tree::new()).unwrap());
    assert_eq!(tar, vec![0; 8192]);
    assert!(read_index(&tar, 8192).unwrap().entries.is_empty());
}

#[test]
fn large_files_come_last_and_huge_ones_have_base_256_sizes() {
    let big = |len| Node::File { meta: meta(0o644), content: Content::Path { path: Arc::from(Path::new("/")), len } };
    let mut tree = specimen();
    tree.insert(path("a-huge"), big(9 << 30));
    tree.insert(path("b-large"), big(LARGE));
    tree.insert(path("c-link"), Node::HardLink { target: path("a-huge") });
    let plan = TarPlan::new(&tree).unwrap();
    let index = plan.index();
    let names: Vec<_> = index.entries.iter().rev().take(3).map(|entry| entry.path.clone()).collect();
    assert_eq!(names, [path("c-link"), path("b-large"), path("a-huge")]);
    assert!(plan.size() > (9 << 30) + LARGE);
    assert!(plan.write(&mut std::io::sink()).is_err(), "a directory is no file of that size");
}

#[test]
fn a_source_that_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("weights");
    std::fs::write(&source, b"four").unwrap();
    let mut tree = Tree::new();
    let content = Content::Path { path: Arc::from(source.as_path()), len: 4 };
    tree.insert(path("weights"), Node::File { meta: meta(0o644), content });
    let plan = TarPlan::new(&tree).unwrap();
    assert!(written(&plan).windows(4).any(|window| window == b"four"));
    std::fs::write(&source, b"fiver").unwrap();
    let error = plan.write(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("4 bytes before, 5 now"), "{error}");
}

#[test]
fn trees_that_contradict_themselves_are_refused() {
    let refused = |path_: &str, node: Node| {
        let mut tree = specimen();
        tree.insert(path(path_), node);
        TarPlan::new(&tree).unwrap_err()
    };
    assert!(matches!(refused("small/below", file([])), PlanError::NotADirectory { .. }));
    assert!(matches!(refused("symlink/a/b", file([])), PlanError::NotADirectory { .. }));
    assert!(matches!(refused("x", Node::HardLink { target: path("none") }), PlanError::LinkTarget { .. }));
    assert!(matches!(refused("x", Node::HardLink { target: path("x") }), PlanError::LinkTarget { .. }));
    assert!(matches!(refused("x", Node::HardLink { target: path("zz-link") }), PlanError::LinkTarget { .. }));
    assert!(matches!(refused(".wh.x", file([])), PlanError::Reserved { .. }));
    assert!(matches!(refused("", Node::Whiteout), PlanError::Root));
    assert!(matches!(refused(&"x".repeat(253), Node::Whiteout), PlanError::TooLong { .. }));
    let mut odd = meta(0o644);
    odd.xattrs.insert(b"security.capability".to_vec(), b"cap".to_vec());
    let node = Node::File { meta: odd, content: Content::bytes([]) };
    assert!(matches!(refused("x", node), PlanError::Xattr { .. }));
}

#[test]
fn a_foreign_or_damaged_tar_is_refused() {
    let good = written(&TarPlan::new(&specimen()).unwrap());
    let refused = |tar: &[u8]| read_index(&tar, tar.len() as u64).unwrap_err().to_string();
    assert!(refused(&good[..good.len() - 1]).contains("multiple of 4096"));
    refused(&good[..good.len() - 4096]);
    assert!(refused(&[good.as_slice(), &[0; 4096]].concat()).contains("ends before the layer does"));
    let mut twice = good.clone();
    twice.splice(512..512, good[..512].iter().copied());
    twice.truncate(good.len());
    assert!(refused(&twice).contains("twice"), "{}", refused(&twice));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), [1; 5000]).unwrap();
    let gnu = Command::new("tar").args(["-cb8", "file"]).current_dir(dir.path()).output().unwrap().stdout;
    assert!(refused(&gnu).contains("member at byte 0"), "{}", refused(&gnu));
}

#[test]
fn gnu_tar_bsdtar_and_python_list_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let plan = TarPlan::new(&specimen()).unwrap();
    let tar = dir.path().join("layer.tar");
    std::fs::write(&tar, written(&plan)).unwrap();
    let wanted: Vec<Vec<u8>> = plan.index().entries.iter().map(|entry| entry.path.as_bytes().to_vec()).collect();
    let script = "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]): sys.stdout.buffer.write(m.name.encode('utf-8','surrogateescape')+b'\\n')";
    let listings: [(&str, &[&str]); 3] =
        [("tar", &["--quoting-style=literal", "-tf"]), ("bsdtar", &["-tf"]), ("python3", &["-c", script])];
    for (tool, arguments) in listings {
        let output = Command::new(tool).args(arguments).arg(&tar).env("LC_ALL", "C.UTF-8").output().unwrap();
        assert!(output.status.success(), "{tool}: {}", output.stderr.escape_ascii());
        let warnings = output.stderr.split(|&byte| byte == b'\n').filter(|line| {
            let known = line.ends_with(b"Ignoring unknown extended header keyword 'hdrcharset'");
            !line.is_empty() && !known
        });
        assert_eq!(warnings.count(), 0, "{tool} warns: {}", output.stderr.escape_ascii());
        let names: Vec<_> = output.stdout.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        let found: Vec<_> = names[..names.len() - 1]
            .iter()
            .map(|name| if tool == "bsdtar" { unescaped(name) } else { name.clone() })
            .map(|name| path(name).as_bytes().to_vec())
            .collect();
        assert_eq!(found, wanted, "{tool}");
    }
}

/// bsdtar prints bytes beyond ASCII as `\ooo`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' && after.len() >= 3 {
            out.push(u8::from_str_radix(std::str::from_utf8(&after[..3]).unwrap(), 8).unwrap());
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    out
}

/// One line for each file below `root`: kind, mode, owner, time, size, links and content's sum.
fn described(root: &Path) -> String {
    let script = r"cd $1 && stat -c '%F %a %u:%g' . \
        && find . -mindepth 1 \( -type d -printf '%P d %m %U:%G %T@\n' \) \
            -o -printf '%P %y %m %U:%G %T@ %n %l %s\n' | sort \
        && find . -type f -print0 | sort -z | xargs -0 sha256sum \
        && for f in *; do python3 -c 'import os, sys
for name in sorted(os.listxattr(sys.argv[1], follow_symlinks=False)):
    print(sys.argv[1], name, os.getxattr(sys.argv[1], name))' $f; done";
    let output = Command::new("bash").args(["-c", script, "-"]).arg(root).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", output.stderr.escape_ascii());
    output.stdout.escape_ascii().to_string().replace("\\n", "\n")
}

#[test]
fn gnu_tar_bsdtar_and_umoci_extract_the_same() {
    if !rustix::process::geteuid().is_root() {
        return; // device nodes and owners need root
    }
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("layer.tar");
    std::fs::write(&tar, written(&TarPlan::new(&specimen()).unwrap())).unwrap();
    let extract = |tool: &str, arguments: &[&str]| {
        let root = dir.path().join(format!("by-{tool}"));
        std::fs::create_dir(&root).unwrap();
        let status = Command::new(tool)
            .arg("-xpf")
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .status()
            .unwrap();
        assert!(status.success(), "{tool}");
        described(&root)
    };
    let gnu = extract("tar", &["--numeric-owner", "--xattrs", "--xattrs-include=*", "--selinux"]);
    assert!(gnu.contains("capable f 755 3:70000 1700000001.0000000000 1  8192"), "{gnu}");
    assert!(gnu.contains("a-link f 640 3:70000 1700000001.0000000000 3  5000"), "{gnu}");
    assert!(gnu.contains("capable security.capability") && gnu.contains("capable user.binary"), "{gnu}");
    assert_eq!(gnu, extract("bsdtar", &["--numeric-owner", "--xattrs"]));
    umoci_extracts(dir.path(), &tar, &gnu);
}

fn umoci_extracts(dir: &Path, tar: &Path, wanted: &str) {
    let bundle = dir.join("bundle");
    let layout = oci_layout(dir, tar);
    let umoci = Command::new("umoci").arg("unpack").arg("--image").arg(layout).arg(&bundle).output().unwrap();
    assert!(umoci.status.success(), "{}", umoci.stderr.escape_ascii());
    assert_eq!(wanted, described(&bundle.join("rootfs")));
}

/// An OCI image with `tar` as its one layer; its name as umoci takes it.
fn oci_layout(dir: &Path, tar: &Path) -> String {
    let blobs = dir.join("oci/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let store = |media_type: &str, data: &[u8]| {
        let digest = gap_format::Digest::of(data);
        std::fs::write(blobs.join(digest.to_hex()), data).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": data.len()})
    };
    let layer = store("application/vnd.oci.image.layer.v1.tar", &std::fs::read(tar).unwrap());
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": [layer["digest"]]});
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {}});
    let config = store("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = store(kind, manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "test"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(dir.join("oci/index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("{}:test", dir.join("oci").display())
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(b"abc".to_vec()), 1..3),
        prop::collection::vec(1..=255_u8, 1..255).prop_map(|mut name| {
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            name.iter_mut().take(1).filter(|byte| **byte == b'.').for_each(|byte| *byte = b'_');
            name
        }),
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let xattrs = prop::collection::btree_map(
        prop::collection::vec(prop::sample::select(b"user.x".to_vec()), 1..9),
        prop::collection::vec(any::<u8>(), 0..700),
        0..3,
    );
    (0..=0o7777_u32, any::<u32>(), any::<u32>(), any::<i64>(), xattrs)
        .prop_map(|(mode, uid, gid, mtime, xattrs)| Meta { mode, uid, gid, mtime, xattrs })
}

fn any_node() -> impl Strategy<Value = Node> {
    let device = (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => (any_meta(), 0..9000_usize)
            .prop_map(|(meta, len)| Node::File { meta, content: Content::bytes(vec![7; len]) }),
        3 => (any_meta(), any::<bool>()).prop_map(|(meta, opaque)| Node::Directory { meta, opaque }),
        1 => (any_meta(), prop::collection::vec(1..=255_u8, 1..300))
            .prop_map(|(meta, target)| Node::Symlink { meta, target }),
        1 => any_meta().prop_map(|meta| Node::Fifo { meta }),
        1 => (any_meta(), device.clone()).prop_map(|(meta, device)| Node::CharDevice { meta, device }),
        1 => (any_meta(), device).prop_map(|(meta, device)| Node::BlockDevice { meta, device }),
        1 => Just(Node::HardLink { target: path("a") }),
        1 => Just(Node::Whiteout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_that_is_planned_is_found_again(
        nodes in prop::collection::vec((prop::collection::vec(any_name(), 1..4), any_node()), 0..20),
    ) {
        let mut tree = Tree::new();
        for (names, node) in nodes {
            let place = path(names.join(&b'/'));
            tree.insert(place.clone(), node);
            if TarPlan::new(&tree).is_err() {
                tree.remove(&place);
            }
        }
        if let Ok(plan) = TarPlan::new(&tree) {
            let tar = written(&plan);
            prop_assert_eq!(read_index(&tar, tar.len() as u64).unwrap(), plan.index());
        }
    }

    #[test]
    fn a_layer_with_changed_bytes_is_refused_or_read_but_never_trips(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        reseal in any::<bool>(),
    ) {
        let mut tar = written(&TarPlan::new(&specimen()).unwrap());
        for (place, value) in changes {
            let at = place.index(tar.len());
            tar[at] = value;
            let start = at / 512 * 512;
            if reseal && tar[start + 257..start + 262] == *b"ustar" {
                tar[start + 148..start + 156].fill(b' ');
                let sum: u32 = tar[start..start + 512].iter().map(|&byte| u32::from(byte)).sum();
                tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(index) = read_index(&tar, tar.len() as u64) {
            prop_assert!(index.entries.len() <= tar.len() / 512);
        }
    }
}
