//! Laying trees one over another, and finding what changed between two.
//!
//! [`Stack::install`] unpacks a package as dpkg does: directories merge, a symbolic link to a
//! directory stays and is followed (`/lib` → `usr/lib`). [`Stack::apply`] lays a layer as OCI does:
//! whiteouts remove, whatever comes later replaces. [`diff`] is the inverse of `apply`.

use super::tree::{Content, Meta, Node, PathError, Tree, TreePath};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Most symbolic links followed on one path (Linux `MAXSYMLINKS`).
const MAX_SYMLINKS: usize = 40;

/// Why one tree cannot be laid over another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// A directory is in the way of something else, or the reverse.
    #[error("{path} is a directory in one and something else in the other; remove one of them")]
    Kind {
        /// Where.
        path: TreePath,
    },
    /// A path leads through symbolic links in a circle.
    #[error("{path} leads through more than 40 symbolic links")]
    Loop {
        /// The path.
        path: TreePath,
    },
    /// A path leads through a link to nowhere that a tree can name.
    #[error("{path} leads through a symbolic link out of the tree: {problem}")]
    Path {
        /// The path.
        path: TreePath,
        /// What is wrong with it.
        problem: PathError,
    },
    /// A hard link whose file is missing.
    #[error("{path} is a hard link to {target}, which is no regular file")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// Its target.
        target: TreePath,
    },
}

/// A tree that grows by laying others over it. Holds no whiteouts, and hard links stay whole when
/// the name that holds the file goes away.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    tree: Tree,
    /// The other names of each file that has some.
    links: BTreeMap<TreePath, BTreeSet<TreePath>>,
}

impl Stack {
    /// A stack of one tree.
    ///
    /// # Errors
    /// [`StackError::LinkTarget`].
    pub fn new(base: &Tree) -> Result<Self, StackError> {
        let mut stack = Self::default();
        stack.apply(base)?;
        Ok(stack)
    }

    /// What lies there now.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What lies there now.
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    /// Lays a layer over the stack: its whiteouts remove, its opaque directories hide what they held,
    /// its nodes replace what is there, except that directories merge.
    ///
    /// # Errors
    /// [`StackError::LinkTarget`].
    pub fn apply(&mut self, layer: &Tree) -> Result<(), StackError> {
        for (path, node) in layer.iter() {
            match node {
                Node::Whiteout => self.remove(path),
                Node::Directory { opaque: true, .. } => self.remove_below(path),
                _ => {}
            }
        }
        for (path, node) in layer.iter() {
            match node {
                Node::Whiteout => {}
                Node::Directory { meta, .. } => self.put_directory(path, meta),
                Node::HardLink { .. } => {}
                _ => self.put(path, node.clone()),
            }
        }
        for (path, node) in layer.iter() {
            if let Node::HardLink { target } = node {
                self.put_link(path, target)?;
            }
        }
        Ok(())
    }

    /// Unpacks a package over the stack and returns where each of its paths came to lie.
    ///
    /// # Errors
    /// [`StackError`] if it puts a file where a directory is or a directory where a file is.
    pub fn install(&mut self, package: &Tree) -> Result<BTreeMap<TreePath, TreePath>, StackError> {
        let mut places = BTreeMap::new();
        let links_last = package.iter().filter(|(_, node)| !matches!(node, Node::HardLink { .. }));
        for (path, node) in links_last {
            let place = self.place(path)?;
            match (node, self.tree.get(&place)) {
                // dpkg leaves the owner, mode and time of a directory to who made it.
                (Node::Directory { .. }, Some(Node::Directory { .. })) => {}
                (Node::Directory { meta, .. }, None) => self.put_directory(&place, meta),
                (Node::Directory { .. }, Some(Node::Symlink { .. })) if self.leads_to_directory(&place)? => {}
                // dpkg never replaces a directory with a link.
                (Node::Symlink { .. }, Some(Node::Directory { .. })) => {}
                (Node::Directory { .. }, Some(_)) | (_, Some(Node::Directory { .. })) => {
                    return Err(StackError::Kind { path: place });
                }
                (Node::Whiteout, _) => self.remove(&place),
                _ => self.put(&place, node.clone()),
            }
            places.insert(path.clone(), place);
        }
        for (path, node) in package.iter() {
            if let Node::HardLink { target } = node {
                let place = self.place(path)?;
                let target = self.place(target)?;
                if matches!(self.tree.get(&place), Some(Node::Directory { .. })) {
                    return Err(StackError::Kind { path: place });
                }
                self.put_link(&place, &target)?;
                places.insert(path.clone(), place);
            }
        }
        Ok(places)
    }

    /// Where `path` lies once the symbolic links on the way to it are followed; its own last name is
    /// not followed.
    ///
    /// # Errors
    /// [`StackError::Loop`], [`StackError::Path`].
    pub fn place(&self, path: &TreePath) -> Result<TreePath, StackError> {
        let Some(parent) = path.parent() else { return Ok(TreePath::root()) };
        let problem = |problem| StackError::Path { path: path.clone(), problem };
        self.followed(&parent)?.join(path.name()).map_err(problem)
    }

    /// Where `path` lies once all symbolic links are followed.
    fn followed(&self, path: &TreePath) -> Result<TreePath, StackError> {
        let problem = |problem| StackError::Path { path: path.clone(), problem };
        let mut ahead: Vec<Vec<u8>> = components(path.as_bytes());
        let mut at = TreePath::root();
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.join(&name).map_err(problem)?;
            let Some(Node::Symlink { target, .. }) = self.tree.get(&next) else {
                at = next;
                continue;
            };
            followed += 1;
            if followed > MAX_SYMLINKS {
                return Err(StackError::Loop { path: path.clone() });
            }
            if target.first() == Some(&b'/') {
                at = TreePath::root();
            }
            ahead.append(&mut components(target));
        }
        Ok(at)
    }

    fn leads_to_directory(&self, path: &TreePath) -> Result<bool, StackError> {
        let end = self.followed(path)?;
        // A link whose target is still to come counts: base-files ships `lib` before `usr/lib`.
        Ok(matches!(self.tree.get(&end), None | Some(Node::Directory { .. })))
    }

    fn put_directory(&mut self, path: &TreePath, meta: &Meta) {
        if let Some(Node::Directory { meta: old, .. }) = self.tree.get_mut(path) {
            *old = meta.clone();
            return;
        }
        // What lies below without a directory of its own stays.
        self.remove_one(path);
        self.tree.insert(path.clone(), Node::Directory { meta: meta.clone(), opaque: false });
    }

    fn put(&mut self, path: &TreePath, node: Node) {
        self.remove(path);
        self.tree.insert(path.clone(), node);
    }

    fn put_link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), StackError> {
        let target = match self.tree.get(target) {
            Some(Node::HardLink { target }) => target.clone(),
            _ => target.clone(),
        };
        if !matches!(self.tree.get(&target), Some(Node::File { .. })) || *path == target {
            return Err(StackError::LinkTarget { path: path.clone(), target });
        }
        self.put(path, Node::HardLink { target: target.clone() });
        self.links.entry(target).or_default().insert(path.clone());
        Ok(())
    }

    /// Takes `path` and what lies below it away.
    fn remove(&mut self, path: &TreePath) {
        self.remove_below(path);
        self.remove_one(path);
    }

    fn remove_below(&mut self, path: &TreePath) {
        let below: Vec<_> = self.tree.below(path).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| self.remove_one(path));
    }

    fn remove_one(&mut self, path: &TreePath) {
        match self.tree.remove(path) {
            Some(Node::HardLink { target }) => {
                if let Some(names) = self.links.get_mut(&target) {
                    names.remove(path);
                }
            }
            Some(file @ Node::File { .. }) => {
                let Some(mut names) = self.links.remove(path) else { return };
                let Some(first) = names.pop_first() else { return };
                for name in &names {
                    self.tree.insert(name.clone(), Node::HardLink { target: first.clone() });
                }
                self.tree.insert(first.clone(), file);
                self.links.insert(first, names);
            }
            _ => {}
        }
    }
}

/// The names in a path or link target, last first; `.` and empty ones left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(<[u8]>::to_vec).collect()
}

/// The layer that, applied over `lower`, gives `upper`: what is new or differs, with the directories
/// above it, and whiteouts for what is gone. A directory that keeps none of its former entries
/// becomes opaque. Neither tree may hold whiteouts.
///
/// # Errors
/// What the system said when contents had to be compared.
pub fn diff(lower: &Tree, upper: &Tree) -> io::Result<Tree> {
    let lower_names = names_of_files(lower);
    let upper_names = names_of_files(upper);
    let mut layer = Tree::new();
    for (path, node) in upper.iter() {
        let same_names = lower_names.get(path) == upper_names.get(path);
        if !same_names || !same(lower, path, upper, node)? {
            layer.insert(path.clone(), node.clone());
            include_parents(&mut layer, upper, path);
        }
    }
    remove_gone(&mut layer, lower, upper);
    Ok(layer)
}

/// For each name of a file with hard links: all its names.
fn names_of_files(tree: &Tree) -> BTreeMap<&TreePath, BTreeSet<&TreePath>> {
    let mut by_file: BTreeMap<&TreePath, BTreeSet<&TreePath>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Node::HardLink { target } = node {
            by_file.entry(target).or_insert_with(|| BTreeSet::from([target])).insert(path);
        }
    }
    let names = by_file.into_values();
    names.flat_map(|names| names.clone().into_iter().map(move |name| (name, names.clone()))).collect()
}

fn same(lower: &Tree, path: &TreePath, upper: &Tree, node: &Node) -> io::Result<bool> {
    let file = |tree: &Tree, node: &Node| -> Option<(Meta, Content)> {
        match node {
            Node::File { meta, content } => Some((meta.clone(), content.clone())),
            Node::HardLink { target } => match tree.get(target)? {
                Node::File { meta, content } => Some((meta.clone(), content.clone())),
                _ => None,
            },
            _ => None,
        }
    };
    let Some(old) = lower.get(path) else { return Ok(false) };
    if let (Some((old_meta, old_content)), Some((meta, content))) = (file(lower, old), file(upper, node)) {
        return Ok(old_meta == meta && old_content.same_bytes(&content)?);
    }
    Ok(match (old, node) {
        (Node::Symlink { meta: old, target: was }, Node::Symlink { meta, target }) => {
            // Linux ignores the mode of a link.
            was == target && *old == Meta { mode: old.mode, ..meta.clone() }
        }
        (Node::Directory { meta: old, .. }, Node::Directory { meta, opaque }) => old == meta && !opaque,
        (Node::CharDevice { meta: old, device: was }, Node::CharDevice { meta, device })
        | (Node::BlockDevice { meta: old, device: was }, Node::BlockDevice { meta, device }) => {
            old == meta && was == device
        }
        (Node::Fifo { meta: old }, Node::Fifo { meta }) => old == meta,
        _ => false,
    })
}

fn include_parents(layer: &mut Tree, upper: &Tree, path: &TreePath) {
    let mut above = path.parent();
    while let Some(parent) = above {
        if layer.get(&parent).is_some() {
            return;
        }
        if let Some(directory @ Node::Directory { .. }) = upper.get(&parent) {
            layer.insert(parent.clone(), directory.clone());
        }
        above = parent.parent();
    }
}

fn remove_gone(layer: &mut Tree, lower: &Tree, upper: &Tree) {
    let kept: BTreeSet<TreePath> =
        lower.iter().filter(|(path, _)| upper.get(path).is_some()).filter_map(|(path, _)| path.parent()).collect();
    for (path, _) in lower.iter().filter(|(path, _)| upper.get(path).is_none()) {
        let Some(parent) = path.parent() else { continue };
        let emptied = match (lower.get(&parent), upper.get(&parent)) {
            (Some(Node::Directory { .. }), Some(Node::Directory { .. })) => !kept.contains(&parent),
            (_, Some(Node::Directory { .. })) | (None, None) => false,
            // Below something that is gone or no longer a directory, nothing needs saying.
            _ => continue,
        };
        include_parents(layer, upper, path);
        match layer.get_mut(&parent) {
            Some(Node::Directory { opaque, .. }) if emptied => *opaque = true,
            _ => {
                layer.insert(path.clone(), Node::Whiteout);
            }
        }
    }
}

#[cfg(test)]
mod tests;
