//! What a program leaves in one directory as a layer.

use super::{Problem, Request};
use crate::{
    layer::{
        files::FILES_DATE,
        sandbox::{Job, Sandbox, Scratch, Step, Writes},
        tree::{Meta, Node, Tree, TreePath},
    },
    recipe::RunLayer,
};
use std::io;

/// Bytes that a program may write beside the tree that it runs in.
const WRITTEN: u64 = 2 << 30;

/// Why what a program made cannot become a layer.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("the program left nothing in {0}")]
    Nothing(TreePath),
    #[error(
        "the program does not leave the same bytes each time: {path} differs between two runs{more}; remove what depends \
         on the time, on random numbers or on the order of threads, or say `twice = false`"
    )]
    Differs { path: TreePath, more: String },
    #[error("the program left the socket or device {0}, which no layer can hold")]
    Odd(TreePath),
    #[error("comparing two runs: {0}")]
    Compare(#[from] io::Error),
}

/// Runs the program of `layer` in `root` and takes its output; twice, where the recipe does not say otherwise.
pub fn build(request: &Request<'_>, layer: &RunLayer, root: &Tree) -> Result<Tree, Problem> {
    let made = run(request, layer, root)?;
    if layer.twice {
        let again = run(request, layer, root)?;
        if let Some((path, others)) = difference(&made, &again)? {
            let more = if others > 0 { format!(", and so do {others} more files") } else { String::new() };
            return Err(ProgramError::Differs { path, more }.into());
        }
    }
    Ok(made)
}

fn run(request: &Request<'_>, layer: &RunLayer, root: &Tree) -> Result<Tree, Problem> {
    let session = request.store.session_dir();
    let directory = tempfile::tempdir_in(session)?;
    let mut root = root.clone();
    clear(&mut root, &layer.output);
    let step = Step { command: layer.command.clone(), environment: layer.env.clone(), directory: "/".into() };
    let job = Job {
        root: &root,
        scratch: Scratch::for_size(root.file_bytes() + WRITTEN, directory.path()),
        binds: Vec::new(),
        steps: vec![step],
        source_date: FILES_DATE,
        time_limit: layer.time_limit,
        writes: Writes::Into(layer.output.clone()),
    };
    let outcome = Sandbox::new(request.program, session).run(&job)?;
    Ok(taken(&outcome.changes, layer)?)
}

/// Makes `directory` an empty one in `root`.
fn clear(root: &mut Tree, directory: &TreePath) {
    let below: Vec<TreePath> = root.below(directory).map(|(path, _)| path.clone()).collect();
    for path in below {
        root.remove(&path);
    }
    let mut place = Some(directory.clone());
    while let Some(path) = place.filter(|path| !matches!(root.get(path), Some(Node::Directory { .. }))) {
        root.insert(path.clone(), Node::Directory { meta: Meta::root_owned(0o755, FILES_DATE), opaque: false });
        place = path.parent();
    }
}

/// What lies below the output directory, moved to its place in the layer. Everything belongs to root and has one time.
fn taken(changes: &Tree, layer: &RunLayer) -> Result<Tree, ProgramError> {
    let mut tree = Tree::new();
    let moved = |path: &TreePath| {
        let rest = path.as_bytes().strip_prefix(layer.output.as_bytes())?.strip_prefix(b"/")?;
        layer.to.join(rest).ok()
    };
    for (path, node) in changes.below(&layer.output) {
        let Some(place) = moved(path) else { continue };
        let plain = |meta: &Meta| Meta { uid: 0, gid: 0, mtime: FILES_DATE, ..meta.clone() };
        let node = match node {
            Node::File { meta, content } => Node::File { meta: plain(meta), content: content.clone() },
            Node::Directory { meta, .. } => Node::Directory { meta: plain(meta), opaque: false },
            Node::Symlink { meta, target } => Node::Symlink { meta: plain(meta), target: target.clone() },
            Node::HardLink { target } => match moved(target) {
                Some(target) => Node::HardLink { target },
                None => return Err(ProgramError::Odd(path.clone())),
            },
            _ => return Err(ProgramError::Odd(path.clone())),
        };
        tree.insert(place, node);
    }
    if tree.is_empty() {
        return Err(ProgramError::Nothing(layer.output.clone()));
    }
    if !layer.to.is_root() {
        let meta = Meta::root_owned(0o755, FILES_DATE);
        tree.insert(layer.to.clone(), Node::Directory { meta, opaque: false });
    }
    Ok(tree)
}

/// The first path at which two trees differ, and how many more there are.
fn difference(one: &Tree, other: &Tree) -> Result<Option<(TreePath, usize)>, ProgramError> {
    let mut differing = Vec::new();
    for (path, node) in one.iter() {
        if !other.get(path).map_or(Ok(false), |theirs| same(node, theirs))? {
            differing.push(path);
        }
    }
    differing.extend(other.iter().map(|(path, _)| path).filter(|path| one.get(path).is_none()));
    differing.sort();
    Ok(differing.split_first().map(|(first, others)| ((*first).clone(), others.len())))
}

fn same(one: &Node, other: &Node) -> io::Result<bool> {
    match (one, other) {
        (Node::File { meta, content }, Node::File { meta: their_meta, content: theirs }) => {
            Ok(meta == their_meta && content.same_bytes(theirs)?)
        }
        (Node::Directory { meta, .. }, Node::Directory { meta: theirs, .. }) => Ok(meta == theirs),
        (Node::Symlink { meta, target }, Node::Symlink { meta: their_meta, target: theirs }) => {
            Ok(meta == their_meta && target == theirs)
        }
        (Node::HardLink { target }, Node::HardLink { target: theirs }) => Ok(target == theirs),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::Content;
    use std::time::Duration;

    fn layer() -> RunLayer {
        RunLayer {
            on: vec!["base".to_owned()],
            command: vec!["make".to_owned()],
            env: Default::default(),
            output: path("out"),
            to: path("opt/made"),
            time_limit: Duration::from_secs(1),
            twice: true,
        }
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(text: &str) -> Node {
        let meta = Meta { uid: 7, ..Meta::root_owned(0o640, 99) };
        Node::File { meta, content: Content::bytes(text.as_bytes()) }
    }

    #[test]
    fn only_the_output_is_taken_and_it_belongs_to_root_in_one_time() {
        let link = Node::HardLink { target: path("out/a") };
        let changes =
            Tree::from_iter([(path("out/a"), file("1")), (path("out/b"), link), (path("etc/leak"), file("2"))]);
        let made = taken(&changes, &layer()).unwrap();
        let paths: Vec<_> = made.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["/opt/made", "/opt/made/a", "/opt/made/b"]);
        let Some(Node::File { meta, .. }) = made.get(&path("opt/made/a")) else { panic!("no file") };
        assert_eq!((meta.uid, meta.mode, meta.mtime), (0, 0o640, FILES_DATE));
        assert!(
            matches!(made.get(&path("opt/made/b")), Some(Node::HardLink { target }) if *target == path("opt/made/a"))
        );
    }

    #[test]
    fn a_program_that_leaves_nothing_or_links_out_of_its_output_fails() {
        let outside = Tree::from_iter([(path("etc/leak"), file("2"))]);
        assert!(matches!(taken(&outside, &layer()), Err(ProgramError::Nothing(_))));
        let link = Node::HardLink { target: path("etc/passwd") };
        assert!(matches!(taken(&Tree::from_iter([(path("out/a"), link)]), &layer()), Err(ProgramError::Odd(_))));
    }

    #[test]
    fn the_first_file_that_differs_is_named() {
        let one = Tree::from_iter([(path("a"), file("1")), (path("b"), file("1")), (path("c"), file("1"))]);
        let other = Tree::from_iter([(path("a"), file("1")), (path("b"), file("2")), (path("d"), file("1"))]);
        assert_eq!(difference(&one, &other).unwrap(), Some((path("b"), 2)));
        assert_eq!(difference(&one, &one).unwrap(), None);
    }

    #[test]
    fn the_output_is_empty_when_the_program_starts() {
        let mut root = Tree::from_iter([(path("out/old"), file("1"))]);
        clear(&mut root, &path("out"));
        assert_eq!(root.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["/", "/out"]);
    }
}
