//! Random layers: whatever the trees, the blob reads back as the merged tree.

use crate::{
    entry::{assert_same, meant},
    layers::Image,
    reader::parse,
    sample::{file, path},
};
use gapimage::layer::tree::{Device, Meta, Node, Tree};
use proptest::prelude::*;

fn node() -> impl Strategy<Value = Node> {
    let meta = (0u32..0o10000, any::<u32>(), any::<u32>(), any::<i32>(), prop::option::of((1usize..9, 0usize..5000)));
    let meta = meta.prop_map(|(mode, uid, gid, mtime, xattr)| Meta {
        mode,
        uid,
        gid,
        mtime: mtime.into(),
        xattrs: xattr.map(|(n, v)| (format!("user.{}", "n".repeat(n)).into_bytes(), vec![3; v])).into_iter().collect(),
    });
    let len = prop_oneof![0usize..100, 4000usize..4100, 8100usize..8200, 0usize..70_000];
    (meta, 0..12, len, any::<u8>()).prop_map(|(meta, kind, len, seed)| match kind {
        0 => Node::Symlink { meta, target: vec![b'a' + seed % 26; len % 4095 + 1] },
        1 => Node::Fifo { meta },
        2 => Node::CharDevice { meta, device: Device { major: 4, minor: seed.into() } },
        3 => Node::BlockDevice { meta, device: Device { major: 8, minor: seed.into() } },
        4 | 5 => Node::Directory { meta, opaque: seed % 3 == 0 },
        6 => Node::Whiteout,
        _ => {
            let Node::File { content, .. } = file(len, seed) else { unreachable!() };
            Node::File { meta, content }
        }
    })
}

/// Few names, so that layers meet; directories have names of their own, so that a path never leads through a file.
fn tree() -> impl Strategy<Value = Tree> {
    let name = (prop::collection::vec("[A-C]", 0..3), "[a-e\u{e9}!]{1,3}");
    prop::collection::vec((name, node()), 0..60).prop_map(|nodes| {
        nodes.into_iter().map(|((above, leaf), node)| (path([above, vec![leaf]].concat().join("/")), node)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_read_back_as_the_merged_tree(trees in prop::collection::vec(tree(), 1..4)) {
        let image = Image::new(&trees);
        assert_same("parsed", &parse(&image), &meant(&image.tree, &image.layers));
    }
}
