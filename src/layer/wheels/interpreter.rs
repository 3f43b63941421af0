//! What the sandbox has of an image to compile bytecode with: interpreter, its libraries, the standard library.

use super::InstallError;
use crate::{
    layer::{
        stack::Stack,
        tree::{Content, Node, Tree, TreePath},
    },
    source::wheels::target::Python,
};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn, FileHeader, SectionHeader as _},
};
use std::collections::BTreeSet;

/// Directories in which the loader finds shared libraries.
const LIBRARIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"];
/// Parts of the standard library that nothing is compiled with.
const LEFT_OUT: [&str; 8] =
    ["test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "dist-packages", "site-packages"];

/// The interpreter, the libraries that it needs and the standard library, as they are in `lower`.
///
/// # Errors
/// [`InstallError::NoInterpreter`] if there is no Python, [`InstallError::Interpreter`] if it is none that can be read.
pub(super) fn root(lower: &Tree, python: Python) -> Result<Tree, InstallError> {
    let series = python.series();
    let mut root = Tree::new();
    let program = path(&format!("usr/bin/python{series}"))?;
    let library = path(&format!("usr/lib/python{series}"))?;
    let left_out = |below: &TreePath| {
        let rest = below.as_bytes().strip_prefix(library.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        let first = rest.and_then(|rest| rest.split(|&byte| byte == b'/').next()).unwrap_or_default();
        LEFT_OUT.iter().any(|name| name.as_bytes() == first) || first.starts_with(b"config-")
    };
    for (below, node) in lower.below(&library).filter(|(below, node)| !left_out(below) && can_be_taken(node)) {
        root.insert(below.clone(), node.clone());
    }
    // `/lib64` and its like lead into `/usr`.
    for (top, node) in lower.iter().filter(|(top, node)| {
        matches!(node, Node::Symlink { .. }) && top.parent().is_some_and(|parent| parent.is_root())
    }) {
        root.insert(top.clone(), node.clone());
    }
    let stack = Stack::new(lower)
        .map_err(|error| InstallError::Interpreter { path: program.clone(), reason: error.to_string() })?;
    let mut ahead = vec![program];
    let mut seen = BTreeSet::new();
    while let Some(wanted) = ahead.pop() {
        if !seen.insert(wanted.clone()) {
            continue;
        }
        match stack.tree().get(&wanted) {
            Some(node @ Node::Symlink { target, .. }) => {
                root.insert(wanted.clone(), node.clone());
                ahead.push(led_to(&wanted, target)?);
            }
            Some(node @ Node::File { content, .. }) => {
                root.insert(wanted.clone(), node.clone());
                let needed = needed(content).map_err(|reason| InstallError::Interpreter { path: wanted, reason })?;
                ahead.extend(needed.iter().flat_map(|name| places(stack.tree(), name)));
            }
            _ => return Err(InstallError::NoInterpreter { path: wanted }),
        }
    }
    Ok(root)
}

/// Hard links may name what is left out, devices cannot be made in the sandbox.
const fn can_be_taken(node: &Node) -> bool {
    matches!(node, Node::Directory { .. } | Node::File { .. } | Node::Symlink { .. })
}

fn led_to(link: &TreePath, target: &[u8]) -> Result<TreePath, InstallError> {
    let mut at = if target.starts_with(b"/") { TreePath::root() } else { link.parent().unwrap_or_default() };
    for name in target.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        at = match name {
            b".." => at.parent().unwrap_or_default(),
            name => at.join(name).map_err(|reason| InstallError::path(&link.to_string(), reason))?,
        };
    }
    Ok(at)
}

/// Where a library is: more than once where one place leads to another.
fn places(tree: &Tree, name: &[u8]) -> Vec<TreePath> {
    let places = LIBRARIES.iter().filter_map(|directory| TreePath::new(directory).ok()?.join(name).ok());
    places.filter(|place| tree.get(place).is_some()).collect()
}

/// The shared libraries that a program or library names, its loader among them.
fn needed(content: &Content) -> Result<Vec<Vec<u8>>, String> {
    let data = content.read().map_err(|error| error.to_string())?;
    let data = data.as_slice();
    let read = || -> object::Result<Vec<Vec<u8>>> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut found = Vec::new();
        if let Some((entries, link)) = sections.dynamic(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
                found.push(entry.string(endian, strings)?.to_vec());
            }
        }
        for section in sections.iter() {
            if sections.section_name(endian, section)? == b".interp" {
                let loader = section.data(endian, data)?.split(|&byte| byte == 0).next().unwrap_or_default();
                found.push(loader.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec());
            }
        }
        Ok(found)
    };
    read().map_err(|error| error.to_string())
}

/// A path that is known to be one.
pub(super) fn path(text: &str) -> Result<TreePath, InstallError> {
    TreePath::new(text).map_err(|reason| InstallError::path(text, reason))
}
