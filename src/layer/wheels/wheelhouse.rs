//! The wheels themselves, with an index of them (PEP 503), so that pip works inside without any other.
//!
//! ```text
//! /opt/wheelhouse/NAME.whl             for `pip install --no-index --find-links /opt/wheelhouse`
//! /opt/wheelhouse/simple/PROJECT/      for `pip install --index-url file:///opt/wheelhouse/simple`
//! /opt/wheelhouse/requirements.txt     all of them with their digests, for `--require-hashes -r`
//! ```

use super::{FILE_DATE, InstallError};
use crate::{
    layer::tree::{Content, Meta, Node, Tree, TreePath},
    source::wheels::LockedWheel,
    store::Store,
};
use std::sync::Arc;

/// The directory of the wheels.
const DIRECTORY: &str = "opt/wheelhouse";

/// The wheels of one part, which must be in the store by the time they are read.
///
/// # Errors
/// [`InstallError::Path`] for a name that cannot be one.
pub fn wheels(wheels: &[&LockedWheel], store: &Store) -> Result<Tree, InstallError> {
    let mut tree = directory()?;
    for wheel in wheels {
        let path = Arc::from(store.source_path(&wheel.sha256));
        let content = Content::Path { path, len: wheel.size };
        tree.insert(below(&wheel.file)?, file(content));
    }
    Ok(tree)
}

/// The pages of the index, and the list with digests.
///
/// # Errors
/// As for [`wheels`].
pub fn index(wheels: &[LockedWheel]) -> Result<Tree, InstallError> {
    let mut tree = directory()?;
    let mut projects = String::new();
    let mut requirements = String::new();
    for wheel in wheels {
        let LockedWheel { name, version, file: file_name, .. } = wheel;
        let hex = wheel.sha256.to_hex();
        projects.push_str(&format!("<a href=\"{name}/\">{name}</a><br>\n"));
        requirements.push_str(&format!("{name}=={version} --hash=sha256:{hex}\n"));
        // Of what a wheel's name may hold, only these two mean something else in an address.
        let address = file_name.replace('+', "%2B").replace('!', "%21");
        let link = format!("<a href=\"../../{address}#sha256={hex}\">{file_name}</a><br>\n");
        tree.insert(below(&format!("simple/{name}"))?, folder());
        tree.insert(below(&format!("simple/{name}/index.html"))?, file(page(&link)));
    }
    tree.insert(below("simple")?, folder());
    tree.insert(below("simple/index.html")?, file(page(&projects)));
    tree.insert(below("requirements.txt")?, file(Content::bytes(requirements.into_bytes())));
    Ok(tree)
}

fn directory() -> Result<Tree, InstallError> {
    Ok(Tree::from_iter([(below("")?, folder())]))
}

fn below(name: &str) -> Result<TreePath, InstallError> {
    TreePath::new(format!("{DIRECTORY}/{name}")).map_err(|reason| InstallError::path(name, reason))
}

fn folder() -> Node {
    Node::Directory { meta: Meta::root_owned(0o755, FILE_DATE), opaque: false }
}

fn file(content: Content) -> Node {
    Node::File { meta: Meta::root_owned(0o644, FILE_DATE), content }
}

fn page(links: &str) -> Content {
    let text = format!("<!DOCTYPE html>\n<html><head><title>Wheels</title></head><body>\n{links}</body></html>\n");
    Content::bytes(text.into_bytes())
}
