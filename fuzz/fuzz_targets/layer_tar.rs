//! Any bytes as a layer, and the same bytes as changes to a good layer: what is found lies within the layer, and no
//! entry is found twice.
#![no_main]

use gapimage::layer::{
    tar::{IndexKind, TarPlan, read_index},
    tree::{Content, Device, Meta, Node, Tree, TreePath},
};
use gapimage_fuzz::{change, mend_tar_checksums};
use libfuzzer_sys::fuzz_target;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

static GOOD: OnceLock<Vec<u8>> = OnceLock::new();

/// A layer with something of every kind.
fn good() -> Vec<u8> {
    let xattrs = BTreeMap::from([(b"user.binary".to_vec(), b"a\0b\nc=d".to_vec())]);
    let meta = || Meta { mode: 0o755, uid: 3, gid: 70_000, mtime: 1_700_000_001, xattrs: xattrs.clone() };
    let file = |len| Node::File { meta: Meta::root_owned(0o644, 1), content: Content::bytes(vec![b'x'; len]) };
    let path = |name: &str| TreePath::new(name).expect("a path");
    let mut tree = Tree::new();
    tree.insert(path(""), Node::Directory { meta: meta(), opaque: false });
    tree.insert(path("d"), Node::Directory { meta: meta(), opaque: true });
    tree.insert(path("d/small"), file(9));
    tree.insert(path("d/page"), file(4096));
    tree.insert(path("d/link"), Node::HardLink { target: path("d/page") });
    tree.insert(path("d/symlink"), Node::Symlink { meta: meta(), target: b"../small".repeat(20) });
    tree.insert(path("d/gone"), Node::Whiteout);
    tree.insert(path("fifo"), Node::Fifo { meta: meta() });
    tree.insert(path("null"), Node::CharDevice { meta: meta(), device: Device { major: 1, minor: 3 } });
    let mut layer = Vec::new();
    TarPlan::new(&tree).expect("a layer").write(&mut layer).expect("memory");
    layer
}

fn read(layer: &[u8]) {
    let Ok(index) = read_index(&layer, layer.len() as u64) else { return };
    let mut seen = BTreeSet::new();
    for entry in &index.entries {
        assert!(seen.insert(&entry.path), "{} is found twice", entry.path);
        match &entry.kind {
            IndexKind::File { offset, len } => {
                assert!(offset.checked_add(*len).is_some_and(|end| end < index.size));
            }
            IndexKind::HardLink(target) => assert!(seen.contains(target)),
            _ => {}
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut layer = bytes.to_vec();
    mend_tar_checksums(&mut layer);
    read(&layer);
    let good = GOOD.get_or_init(|| {
        let good = good();
        read_index(&good.as_slice(), good.len() as u64).expect("a good layer is read");
        good
    });
    let mut layer = good.clone();
    change(&mut layer, bytes);
    mend_tar_checksums(&mut layer);
    read(&layer);
});
