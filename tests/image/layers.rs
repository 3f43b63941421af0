//! Images made of trees: layer tars, the merged tree, the metadata blob.

use gap_format::ReadAt;
use gapimage::{
    image::{
        erofs::ErofsPlan,
        merge::{Merged, merge},
    },
    layer::{
        tar::{LayerIndex, TarPlan, read_index},
        tree::Tree,
    },
};

/// An image in memory.
pub struct Image {
    pub tree: Merged,
    pub blob: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// An image of `trees`, the lowest first.
    pub fn new(trees: &[Tree]) -> Self {
        Self::of_layers(trees.iter().map(layer).collect())
    }

    /// An image of layers and their indexes.
    pub fn of_layers(layers: Vec<(Vec<u8>, LayerIndex)>) -> Self {
        let (layers, indexes): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
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

/// The tar of a tree, and the index that is found in it.
fn layer(tree: &Tree) -> (Vec<u8>, LayerIndex) {
    let mut bytes = Vec::new();
    TarPlan::new(tree).unwrap().write(&mut bytes).unwrap();
    let index = read_index(&bytes, bytes.len() as u64).unwrap();
    (bytes, index)
}
