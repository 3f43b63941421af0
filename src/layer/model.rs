//! Models as layers: one for each file of weights, and one for the small files together.
//!
//! In the image a model is a plain directory, `/models/NAME/`, and, where it has a name of a hub, a Hugging Face cache
//! below `/models/hub/` as well: with `HF_HUB_CACHE=/models/hub`, `from_pretrained("owner/name")` works without a network.
//! The files of the cache are hard links to those of the directory, so nothing is there twice.

mod placed;

pub use placed::{ModelPlaceError, PlacedModel};

use super::{
    files::FILES_DATE,
    tree::{Content, Meta, Node, PathError, Tree, TreePath},
};
use crate::{
    model::{ModelFiles, is_weights},
    recipe::RepoName,
    source::model::GitId,
};

/// Directory of all models in an image.
const MODELS: &str = "models";
/// Directory of the cache that Hugging Face's libraries look into, for `HF_HUB_CACHE`.
pub const HUB_CACHE: &str = "/models/hub";
/// The revision that is meant where none is given.
const MAIN: &str = "main";
/// Name of the part that holds the small files.
pub const SMALL: &str = "files";

/// Where the tokenizer of the model whose layer is `layer` (`model/NAME`) lies in an image.
///
/// # Errors
/// [`PathError`] if that cannot be a path.
pub fn tokenizer_path(layer: &str) -> Result<TreePath, PathError> {
    let name = layer.rsplit('/').next().unwrap_or(layer);
    TreePath::new(format!("{MODELS}/{name}/tokenizer.json"))
}

/// Where a model lies in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Name of its directory.
    pub name: String,
    /// Its place in the cache, if it has a name of a hub.
    pub cache: Option<CachePlace>,
}

/// A model's place in a Hugging Face cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePlace {
    /// The repository.
    pub repo: RepoName,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: GitId,
}

/// One layer of a model.
#[derive(Debug, Clone)]
pub struct ModelPart {
    /// Which one: the file's name, or [`SMALL`].
    pub name: String,
    /// Its files in the model, by path.
    pub files: Vec<String>,
    /// What it holds.
    pub tree: Tree,
}

/// The layers of a model, the small files first. Contents are not read.
///
/// # Errors
/// [`PathError`] if a path cannot be in a tree.
pub fn parts(placement: &Placement, files: &ModelFiles) -> Result<Vec<ModelPart>, PathError> {
    let mut small = ModelPart { name: SMALL.to_owned(), files: Vec::new(), tree: Tree::new() };
    placement.refs(&mut small.tree)?;
    let mut parts = Vec::new();
    for (path, file) in files.iter() {
        let content = Content::Path { path: file.real.as_path().into(), len: file.size };
        if is_weights(path, file.size) {
            let mut part = ModelPart { name: path.to_owned(), files: vec![path.to_owned()], tree: Tree::new() };
            placement.file(&mut part.tree, path, content)?;
            parts.push(part);
        } else {
            placement.file(&mut small.tree, path, content)?;
            small.files.push(path.to_owned());
        }
    }
    if !small.tree.is_empty() {
        parts.insert(0, small);
    }
    Ok(parts)
}

impl Placement {
    /// Puts a file into the directory, and a link to it into the cache.
    fn file(&self, tree: &mut Tree, path: &str, content: Content) -> Result<(), PathError> {
        let plain = TreePath::new(format!("{MODELS}/{}/{path}", self.name))?;
        if let Some(cache) = &self.cache {
            let linked = TreePath::new(format!("{}/snapshots/{}/{path}", cache.folder(), cache.commit))?;
            directories(tree, &linked);
            tree.insert(linked, Node::HardLink { target: plain.clone() });
        }
        directories(tree, &plain);
        tree.insert(plain, Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content });
        Ok(())
    }

    /// Puts the names of the commit into the cache: `main`, which is meant where nothing is said, and the revision that
    /// the recipe names.
    fn refs(&self, tree: &mut Tree) -> Result<(), PathError> {
        let Some(cache) = &self.cache else { return Ok(()) };
        for name in [MAIN, cache.revision.as_str()] {
            if name.parse::<GitId>().is_ok() {
                continue;
            }
            let path = TreePath::new(format!("{}/refs/{name}", cache.folder()))?;
            directories(tree, &path);
            // Without a newline: the library compares the whole content.
            let content = Content::bytes(cache.commit.to_string().into_bytes());
            tree.insert(path, Node::File { meta: Meta::root_owned(0o644, FILES_DATE), content });
        }
        Ok(())
    }
}

impl CachePlace {
    fn folder(&self) -> String {
        format!("{}/{}", HUB_CACHE.trim_start_matches('/'), self.repo.cache_folder())
    }
}

/// Adds the directories above a path.
fn directories(tree: &mut Tree, path: &TreePath) {
    let mut above = path.parent();
    while let Some(directory) = above.filter(|directory| !directory.is_root()) {
        above = directory.parent();
        tree.insert(directory, Node::Directory { meta: Meta::root_owned(0o755, FILES_DATE), opaque: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layer::tar::TarPlan, model::ModelFile};

    fn files(dir: &std::path::Path, names: &[&str]) -> ModelFiles {
        let file = |name: &&str| {
            let real = dir.join(name.replace('/', "_"));
            std::fs::write(&real, name).unwrap();
            ((*name).to_owned(), ModelFile::alone(real, name.len() as u64))
        };
        names.iter().map(file).collect()
    }

    fn placement(revision: &str) -> Placement {
        let commit = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let cache = CachePlace { repo: RepoName::new("org/name").unwrap(), revision: revision.to_owned(), commit };
        Placement { name: "m".to_owned(), cache: Some(cache) }
    }

    #[test]
    fn each_shard_is_a_layer_and_the_cache_is_made_of_links() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), &["config.json", "model-1.safetensors", "sub/x.txt"]);
        let parts = parts(&placement("v1"), &files).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, [SMALL, "model-1.safetensors"]);
        assert_eq!(parts[0].files, ["config.json", "sub/x.txt"]);
        let shard: Vec<String> = parts[1].tree.iter().map(|(path, _)| path.to_string()).collect();
        let snapshot = "/models/hub/models--org--name/snapshots/0123456789abcdef0123456789abcdef01234567";
        assert_eq!(shard.first().unwrap(), "/models");
        assert!(shard.contains(&format!("{snapshot}/model-1.safetensors")));
        assert!(shard.contains(&"/models/m/model-1.safetensors".to_owned()));
        for name in ["main", "v1"] {
            let path = TreePath::new(format!("models/hub/models--org--name/refs/{name}")).unwrap();
            let Some(Node::File { content, .. }) = parts[0].tree.get(&path) else { panic!("no {name}") };
            assert_eq!(content.read().unwrap(), b"0123456789abcdef0123456789abcdef01234567");
        }
        for part in &parts {
            TarPlan::new(&part.tree).unwrap();
        }
    }

    #[test]
    fn a_model_without_a_name_of_a_hub_is_a_plain_directory() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), &["model.gguf"]);
        let parts = parts(&Placement { name: "m".to_owned(), cache: None }, &files).unwrap();
        assert_eq!(parts.len(), 1);
        let paths: Vec<String> = parts[0].tree.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["/models", "/models/m", "/models/m/model.gguf"]);
    }
}
