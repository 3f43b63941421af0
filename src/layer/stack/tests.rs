use super::*;
use proptest::prelude::*;

fn path(raw: &str) -> TreePath {
    TreePath::new(raw).unwrap()
}

fn directory() -> Node {
    Node::Directory { meta: Meta::root_owned(0o755, 1), opaque: false }
}

fn file(text: &str) -> Node {
    Node::File { meta: Meta::root_owned(0o644, 1), content: Content::bytes(text.as_bytes()) }
}

fn symlink(target: &str) -> Node {
    Node::Symlink { meta: Meta::root_owned(0o777, 1), target: target.into() }
}

fn link(target: &str) -> Node {
    Node::HardLink { target: path(target) }
}

fn tree<const N: usize>(nodes: [(&str, Node); N]) -> Tree {
    nodes.into_iter().map(|(raw, node)| (path(raw), node)).collect()
}

/// One line a node; contents spelled out.
fn shown(tree: &Tree) -> Vec<String> {
    let kind = |node: &Node| match node {
        Node::Directory { meta, opaque } => format!("d {:o}{}", meta.mode, if *opaque { " opaque" } else { "" }),
        Node::File { content, .. } => format!("f {}", content.read().unwrap().escape_ascii()),
        Node::Symlink { target, .. } => format!("l {}", target.escape_ascii()),
        Node::HardLink { target } => format!("h {target}"),
        Node::Whiteout => "gone".to_owned(),
        _ => "other".to_owned(),
    };
    tree.iter().map(|(path, node)| format!("{path} {}", kind(node))).collect()
}

#[test]
fn a_package_follows_the_links_of_a_merged_usr() {
    let mut stack =
        Stack::new(&tree([("usr", directory()), ("usr/lib", directory()), ("lib", symlink("usr/lib"))])).unwrap();
    let package = tree([
        ("lib", directory()),
        ("lib/x", directory()),
        ("lib/x/y.so", file("y")),
        ("lib/x/z.so", link("lib/x/y.so")),
    ]);
    let places = stack.install(&package).unwrap();
    assert_eq!(places[&path("lib/x/y.so")], path("usr/lib/x/y.so"));
    assert_eq!(
        shown(stack.tree()),
        [
            "/lib l usr/lib",
            "/usr d 755",
            "/usr/lib d 755",
            "/usr/lib/x d 755",
            "/usr/lib/x/y.so f y",
            "/usr/lib/x/z.so h /usr/lib/x/y.so"
        ]
    );
}

#[test]
fn absolute_links_and_dots_stay_inside() {
    let base =
        tree([("a", directory()), ("a/up", symlink("../../../b")), ("abs", symlink("/a/./up")), ("b", directory())]);
    let stack = Stack::new(&base).unwrap();
    assert_eq!(stack.place(&path("abs/file")), Ok(path("b/file")));
    let stack = Stack::new(&tree([("x", symlink("y")), ("y", symlink("x"))])).unwrap();
    assert!(matches!(stack.place(&path("x/file")), Err(StackError::Loop { .. })));
}

#[test]
fn a_directory_and_a_file_do_not_replace_each_other() {
    let mut stack = Stack::new(&tree([("d", directory()), ("f", file("f"))])).unwrap();
    assert_eq!(stack.install(&tree([("d", file("x"))])), Err(StackError::Kind { path: path("d") }));
    assert_eq!(stack.install(&tree([("f", directory())])), Err(StackError::Kind { path: path("f") }));
    stack.install(&tree([("d", symlink("f"))])).unwrap();
    assert_eq!(shown(stack.tree())[0], "/d d 755");
}

#[test]
fn hard_links_survive_the_name_that_held_the_file() {
    let mut stack = Stack::new(&tree([("a", file("old")), ("b", link("a")), ("c", link("a"))])).unwrap();
    stack.install(&tree([("a", file("new"))])).unwrap();
    assert_eq!(shown(stack.tree()), ["/a f new", "/b f old", "/c h /b"]);
    stack.apply(&tree([("b", Node::Whiteout)])).unwrap();
    assert_eq!(shown(stack.tree()), ["/a f new", "/c f old"]);
}

#[test]
fn a_layer_removes_and_replaces() {
    let mut stack = Stack::new(&tree([
        ("d", directory()),
        ("d/x", file("x")),
        ("e", directory()),
        ("e/x", file("x")),
        ("f", directory()),
        ("f/x", file("x")),
    ]))
    .unwrap();
    let opaque = Node::Directory { meta: Meta::root_owned(0o700, 1), opaque: true };
    stack.apply(&tree([("d", Node::Whiteout), ("e", opaque), ("e/y", file("y")), ("f", file("f"))])).unwrap();
    assert_eq!(shown(stack.tree()), ["/e d 700", "/e/y f y", "/f f f"]);
}

#[test]
fn a_directory_that_comes_late_keeps_what_lies_below() {
    let mut stack = Stack::new(&tree([("d/x", file("x")), ("e", file("e"))])).unwrap();
    stack.apply(&tree([("", directory()), ("d", directory()), ("e", directory())])).unwrap();
    assert_eq!(shown(stack.tree()), ["/ d 755", "/d d 755", "/d/x f x", "/e d 755"]);
}

#[test]
fn only_changes_and_their_parents_are_in_a_diff() {
    let lower = tree([
        ("a", directory()),
        ("a/b", directory()),
        ("a/b/same", file("same")),
        ("a/b/changed", file("old")),
        ("c", directory()),
        ("c/gone", directory()),
        ("c/gone/deep", file("x")),
        ("c/kept", file("kept")),
        ("e", directory()),
        ("e/all", file("gone")),
    ]);
    let upper = tree([
        ("a", directory()),
        ("a/b", directory()),
        ("a/b/same", file("same")),
        ("a/b/changed", file("new")),
        ("c", directory()),
        ("c/kept", file("kept")),
        ("e", directory()),
    ]);
    let layer = diff(&lower, &upper).unwrap();
    assert_eq!(
        shown(&layer),
        ["/a d 755", "/a/b d 755", "/a/b/changed f new", "/c d 755", "/c/gone gone", "/e d 755 opaque"]
    );
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop::sample::select(vec!["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "c/a", "a/a/a", "a/a/b"]);
    let node = prop_oneof![
        3 => Just(directory()),
        2 => prop::sample::select(vec!["1", "2"]).prop_map(file),
        1 => Just(symlink("a")),
        1 => prop::sample::select(vec!["a", "b", "a/a"]).prop_map(link),
    ];
    prop::collection::btree_map(name, node, 0..10).prop_map(|nodes| {
        let mut tree = Tree::new();
        for (raw, node) in nodes {
            let above = path(raw).parent().filter(|parent| !parent.is_root());
            let placed = above.is_none_or(|parent| matches!(tree.get(&parent), Some(Node::Directory { .. })));
            let target = if let Node::HardLink { target } = &node { tree.get(target) } else { Some(&node) };
            if placed && target.is_some_and(|node| !matches!(node, Node::HardLink { .. })) {
                let linked = matches!(node, Node::HardLink { .. });
                if !linked || matches!(target, Some(Node::File { .. })) {
                    tree.insert(path(raw), node);
                }
            }
        }
        tree
    })
}

proptest! {
    #[test]
    fn a_diff_applied_gives_the_upper_tree(lower in any_tree(), upper in any_tree()) {
        let mut stack = Stack::new(&lower).unwrap();
        stack.apply(&diff(&lower, &upper).unwrap()).unwrap();
        let names = |tree: &Tree| format!("{:?}", names_of_files(tree));
        prop_assert_eq!(names(stack.tree()), names(&upper));
        let differs = diff(&upper, stack.tree()).unwrap();
        prop_assert!(differs.is_empty(), "{:?}", shown(&differs));
    }
}
