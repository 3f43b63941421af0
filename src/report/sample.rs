//! Small artifacts to report on.

use crate::{
    image::{merge::merge, oci::ImageInfo},
    layer::{
        tar::TarPlan,
        tree::{Compared, Content, Meta, Node, Tree, TreePath},
    },
    pack::{Image, Inputs, Layer, pack},
};
use gap_format::{
    Timestamp,
    statement::{Kind, Release},
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory for artifacts.
pub struct Sample(TempDir);

/// A tree with these files, all with the same owner, mode and time.
pub fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        let content = Content::bytes(text.as_bytes());
        tree.insert(TreePath::new(path).unwrap(), Node::File { meta: Meta::root_owned(0o644, 0), content });
    }
    tree
}

impl Sample {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// An unsigned artifact with the image `os`, whose layers hold one file `/NAME` with this text each.
    pub fn artifact(&self, name: &str, version: &str, layers: &[(&str, &str)]) -> PathBuf {
        let layers: Vec<_> = layers.iter().map(|(layer, text)| (*layer, tree(&[(layer, text)]))).collect();
        self.of_trees(name, version, &layers)
    }

    /// An unsigned artifact with the image `os` of these layers.
    pub fn of_trees(&self, name: &str, version: &str, layers: &[(&str, Tree)]) -> PathBuf {
        let plans: Vec<_> = layers.iter().map(|(_, tree)| TarPlan::new(tree).unwrap()).collect();
        let indexes: Vec<_> = plans.iter().map(TarPlan::index).collect();
        let merged = [merge(&indexes.iter().collect::<Vec<_>>()).unwrap()];
        let packed = layers.iter().zip(&plans).map(|((name, _), plan)| Layer {
            name: (*name).to_owned(),
            size: plan.size(),
            known: None,
            bulk: plan.size(),
            fill: Box::new(|sink| plan.fill(sink, Compared::Each)),
        });
        let info = ImageInfo {
            name: "os".to_owned(),
            version: version.to_owned(),
            architecture: "x86_64".to_owned(),
            ..ImageInfo::default()
        };
        let inputs = Inputs {
            release: release(version),
            layers: packed.collect(),
            images: vec![Image { info, layers: (0..layers.len()).collect() }],
            merged: &merged,
            boot: None,
            attachments: Vec::new(),
        };
        let path = self.path().join(name);
        pack(&inputs, &path, &|_| ()).unwrap();
        path
    }
}

fn release(version: &str) -> Release {
    Release {
        kind: Kind::Appliance,
        name: "example".into(),
        version: version.into(),
        serial: 5,
        rollback_to: 4,
        architecture: "amd64".into(),
        source_date: Timestamp::from_seconds(1_750_000_000).unwrap(),
        expires: None,
    }
}
