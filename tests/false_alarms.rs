//! The scan for secrets over real packages: a Debian root with PyTorch and Transformers gives no alarm.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{cache, repository, succeed};
use gapimage::{
    check::secrets::{Finding, Origin, scan_tree},
    layer::tree::{Content, Meta, Node, Tree, TreePath},
};
use std::{fs, os::unix::ffi::OsStrExt, path::Path, process::Command};

/// Puts all regular files below `directory` into a tree.
fn add(tree: &mut Tree, root: &Path, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            add(tree, root, &path);
        } else if kind.is_file() {
            let name = TreePath::new(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).unwrap();
            let content = Content::Path { len: entry.metadata().unwrap().len(), path: path.into() };
            tree.insert(name, Node::File { meta: Meta::root_owned(0o644, 0), content });
        }
    }
}

#[test]
#[ignore = "reads gigabytes; part of make test-all"]
fn packages_of_debian_and_of_the_python_index_give_no_alarm() {
    let root = cache().join("torch");
    succeed(Command::new(repository().join("tests/torch.sh")).arg(&root));
    let mut tree = Tree::new();
    for part in ["usr", "etc", "opt/site"] {
        add(&mut tree, &root, &root.join(part));
    }
    assert!(tree.iter().count() > 10_000, "the root is not whole");
    let findings = scan_tree(&tree, Origin::Packages, &|_| false).unwrap().findings;
    let alarms: Vec<&Finding> = findings.iter().filter(|finding| !finding.came_with_package).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}
