//! Layers in memory: data where a layer tar has it, with filler that is not zero where headers would be.

use gap_format::ReadAt;
use gapimage::{
    image::{
        erofs::ErofsPlan,
        merge::{Merged, merge},
    },
    layer::{
        index::{IndexEntry, IndexKind, LayerIndex},
        tree::{Meta, Node, Tree},
    },
};

/// From this size on, a file comes last in its layer.
const LAST_FROM: u64 = 1 << 20;
const FILLER: u8 = 0xEE;

/// The bytes and the index of a layer that holds `tree`.
pub fn layer(tree: &Tree) -> (Vec<u8>, LayerIndex) {
    let mut nodes: Vec<_> = tree.iter().collect();
    nodes.sort_by_key(|(_, node)| match node {
        Node::HardLink { .. } => 1,
        Node::File { content, .. } if content.len() >= LAST_FROM => 2,
        _ => 0,
    });
    let mut bytes = Vec::new();
    let mut entries = Vec::new();
    for (path, node) in nodes {
        bytes.resize(bytes.len() + 512, FILLER);
        let (meta, kind) = match node {
            Node::Directory { meta, opaque } => (meta.clone(), IndexKind::Directory { opaque: *opaque }),
            Node::File { meta, content } => {
                if content.len() >= 4096 {
                    bytes.resize(bytes.len().next_multiple_of(4096), FILLER);
                }
                let offset = bytes.len() as u64;
                bytes.extend(content.read().unwrap());
                bytes.resize(bytes.len().next_multiple_of(512), 0);
                (meta.clone(), IndexKind::File { offset, len: content.len() })
            }
            Node::Symlink { meta, target } => (meta.clone(), IndexKind::Symlink(target.clone())),
            Node::HardLink { target } => (Meta::default(), IndexKind::HardLink(target.clone())),
            Node::CharDevice { meta, device } => (meta.clone(), IndexKind::CharDevice(*device)),
            Node::BlockDevice { meta, device } => (meta.clone(), IndexKind::BlockDevice(*device)),
            Node::Fifo { meta } => (meta.clone(), IndexKind::Fifo),
            Node::Whiteout => (Meta::default(), IndexKind::Whiteout),
        };
        entries.push(IndexEntry { path: path.clone(), meta, kind });
    }
    bytes.resize((bytes.len() + 1024).next_multiple_of(4096).max(8192), 0);
    let size = bytes.len() as u64;
    (bytes, LayerIndex { entries, size })
}

/// An image of `trees`, the lowest first: the merged tree, the metadata blob, the layers.
pub struct Image {
    pub tree: Merged,
    pub blob: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(trees: &[Tree]) -> Self {
        let (layers, indexes): (Vec<_>, Vec<_>) = trees.iter().map(layer).unzip();
        let tree = merge(&indexes.iter().collect::<Vec<_>>()).unwrap();
        let plan = ErofsPlan::new(&tree).unwrap();
        let mut blob = Vec::new();
        let sources: Vec<&dyn ReadAt> = layers.iter().map(|layer| layer as &dyn ReadAt).collect();
        plan.write(&mut blob, &sources).unwrap();
        assert_eq!(blob.len() as u64, plan.size());
        assert!(blob.len() >= 8192 && blob.len().is_multiple_of(4096));
        Self { tree, blob, layers }
    }
}
