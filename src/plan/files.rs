//! Files from beside the recipe: a layer of one part, whose tree is known beforehand.

use super::{Ingredients, layers::LARGE, part::Part};
use crate::{
    layer::{
        files::files_tree,
        tree::{Content, Node, Tree},
    },
    recipe::FilesLayer,
    source::files::FilesError,
};
use gap_format::Digest;
use std::{fs, os::unix::fs::MetadataExt};

/// Raised when the builder gives other bytes for the same ingredients.
const FORMAT: u64 = 1;

/// The part that the files make now.
pub(super) fn part(layer: &FilesLayer) -> Result<Part, FilesError> {
    let tree = files_tree(layer)?;
    Ok(Part { name: None, ingredients: ingredients(&tree), sources: Vec::new(), tree: Some(tree), estimate: 0 })
}

/// Small files count by their content. Large ones count by what tells a file from its successor, so that gigabytes of
/// weights are read once, while they are laid down; their digest is in the layer's record.
fn ingredients(tree: &Tree) -> Ingredients {
    let mut ingredients = Ingredients::new("files", FORMAT);
    for (path, node) in tree.iter() {
        ingredients.add(format!("file {path}"), describe(node));
    }
    ingredients
}

/// What tells a node from another: small contents by their digest, large ones by what tells a file from its successor.
pub(super) fn describe(node: &Node) -> String {
    match node {
        Node::File { meta, content: Content::Path { path, len } } if *len < LARGE => {
            let digest = fs::read(path).map(|data| Digest::of(&data).to_string());
            format!("{:o} {len} {}", meta.mode, digest.unwrap_or_else(|error| error.to_string()))
        }
        Node::File { meta, content: Content::Path { path, len } } => match fs::metadata(path) {
            Ok(now) => format!(
                "{:o} {len} {}:{} {}.{} {}.{}",
                meta.mode,
                now.dev(),
                now.ino(),
                now.mtime(),
                now.mtime_nsec(),
                now.ctime(),
                now.ctime_nsec()
            ),
            Err(error) => error.to_string(),
        },
        Node::Symlink { target, .. } => format!("-> {}", target.escape_ascii()),
        Node::Directory { meta, .. } => format!("directory {:o}", meta.mode),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recipe::FileItem, store::LayerKey};
    use std::{os::unix::fs::PermissionsExt, path::Path};

    fn key_of_site(base: &Path) -> LayerKey {
        let item = FileItem { base: base.to_owned(), path: "site".to_owned(), to: "/x".to_owned(), mode: None };
        part(&FilesLayer { items: vec![item] }).unwrap().ingredients.key()
    }

    #[test]
    fn the_key_of_files_is_that_of_names_contents_and_executable_bits_not_of_the_checkout() {
        let site = || {
            let base = tempfile::tempdir().unwrap();
            fs::create_dir(base.path().join("site")).unwrap();
            fs::write(base.path().join("site/motd"), "hello").unwrap();
            base
        };
        let (one, two) = (site(), site());
        let motd = two.path().join("site/motd");
        let mode = |bits| fs::set_permissions(&motd, PermissionsExt::from_mode(bits)).unwrap();
        mode(0o664);
        assert_eq!(key_of_site(one.path()), key_of_site(two.path()));
        fs::write(&motd, "hellO").unwrap();
        assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
        fs::write(&motd, "hello").unwrap();
        assert_eq!(key_of_site(one.path()), key_of_site(two.path()));
        mode(0o744);
        assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
        mode(0o644);
        fs::rename(&motd, two.path().join("site/issue")).unwrap();
        assert_ne!(key_of_site(one.path()), key_of_site(two.path()));
    }
}
