use super::*;
use crate::{
    layer::tree::{Content, Meta, Node, Tree, TreePath},
    report::sample::{Sample, tree},
};

fn compare(old: &[(&str, Tree)], new: &[(&str, Tree)]) -> Difference {
    let sample = Sample::new();
    let old = Contents::open(&sample.of_trees("old.gap", "1.0", old)).unwrap();
    let new = Contents::open(&sample.of_trees("new.gap", "1.0", new)).unwrap();
    difference(&old, &new).unwrap()
}

fn paths(image: &ImageDifference) -> Vec<(&str, State, &[Change])> {
    image.files.iter().map(|file| (file.path.as_str(), file.state, file.what.as_slice())).collect()
}

#[test]
fn an_artifact_does_not_differ_from_itself() {
    let layers = || [("base", tree(&[("etc/motd", "hello")]))];
    let found = compare(&layers(), &layers());
    assert!(found.identical && found.statement.is_empty() && found.boot.is_none());
    assert_eq!(found.images[0].layers, [LayerDifference { name: "base".into(), state: State::Same }]);
    assert_eq!(found.to_string(), "the same release in every byte\n");
}

#[test]
fn fields_of_the_statement_that_differ_are_named() {
    let sample = Sample::new();
    let open = |name, version| Contents::open(&sample.artifact(name, version, &[("base", "text")])).unwrap();
    let found = difference(&open("a.gap", "1.0"), &open("b.gap", "2.0")).unwrap();
    let version = Field { field: "version", old: Some("1.0".into()), new: Some("2.0".into()) };
    assert!(!found.identical && found.statement.contains(&version), "{found:?}");
    assert!(found.images[0].files.is_empty());
}

#[test]
fn files_that_came_went_and_changed_are_named_and_others_are_not() {
    let kept = [("a", "a"), ("longer", "1"), ("same_length", "one"), ("gone", "x")];
    let old = tree(&kept);
    let mut new =
        tree(&[("a", "a"), ("longer", "12"), ("same_length", "two"), ("added", "x"), ("shift", "moves data")]);
    let meta = Meta { uid: 7, ..Meta::root_owned(0o600, 5) };
    let node = Node::File { meta, content: Content::bytes(*b"same") };
    new.insert(TreePath::new("meta").unwrap(), node);
    let mut old = old;
    let node = Node::File { meta: Meta::root_owned(0o644, 0), content: Content::bytes(*b"same") };
    old.insert(TreePath::new("meta").unwrap(), node);
    let found = compare(&[("base", old)], &[("base", new)]);
    let all = [
        ("/added", State::Added, &[][..]),
        ("/gone", State::Gone, &[]),
        ("/longer", State::Changed, &[Change::Content]),
        ("/meta", State::Changed, &[Change::Mode, Change::Owner, Change::Time]),
        ("/same_length", State::Changed, &[Change::Content]),
        ("/shift", State::Added, &[]),
    ];
    assert_eq!(paths(&found.images[0]), all);
    let text = found.to_string();
    assert!(text.contains("~ /meta (mode, owner, time)") && text.contains("- /gone"), "{text}");
}

#[test]
fn what_an_upper_layer_hides_is_compared_as_the_image_shows_it() {
    let base = || ("base", tree(&[("etc/motd", "below")]));
    let mut removes = Tree::new();
    removes.insert(TreePath::new("etc/motd").unwrap(), Node::Whiteout);
    let replaces = tree(&[("etc/motd", "above")]);
    let found = compare(&[base(), ("top", replaces)], &[base(), ("top", removes)]);
    let [image] = found.images.as_slice() else { panic!("one image") };
    assert_eq!(image.layers[0].state, State::Same);
    assert_eq!(image.layers[1].state, State::Changed);
    assert_eq!(paths(image), [("/etc/motd", State::Gone, &[][..])]);
}

#[test]
fn layers_that_came_went_and_moved_are_named() {
    let layer = |name: &'static str| (name, tree(&[(name, name)]));
    let found = compare(&[layer("a"), layer("b"), layer("c")], &[layer("b"), layer("a"), layer("d")]);
    let [image] = found.images.as_slice() else { panic!("one image") };
    let states: Vec<_> = image.layers.iter().map(|layer| (layer.name.as_str(), layer.state)).collect();
    assert_eq!(states, [("a", State::Same), ("b", State::Same), ("c", State::Gone), ("d", State::Added)]);
    assert!(image.reordered);
    assert_eq!(paths(image), [("/c", State::Gone, &[][..]), ("/d", State::Added, &[])]);
}

#[test]
fn packages_of_both_databases_are_compared_by_version() {
    let one = |version: &str| format!("Package: libc6\nVersion: {version}\n");
    let image = |version: &str, more: &str| {
        let status = format!("Package: bash\nStatus: install ok installed\nVersion: 5\n\n{more}");
        tree(&[
            ("var/lib/dpkg/status", &status),
            ("var/lib/dpkg/status.d/libc6", &one(version)),
            ("var/lib/dpkg/status.d/libc6.md5sums", "0000  usr/lib/libc.so.6\n"),
        ])
    };
    let old = image("2.41-1", "Package: gone\nVersion: 1\n");
    let found = compare(&[("base", old)], &[("base", image("2.41-2", "Package: new\nVersion: 9\n"))]);
    let packages: Vec<_> = found.images[0]
        .packages
        .iter()
        .map(|package| (package.name.as_str(), package.old.as_deref(), package.new.as_deref()))
        .collect();
    assert_eq!(
        packages,
        [("gone", Some("1"), None), ("libc6", Some("2.41-1"), Some("2.41-2")), ("new", None, Some("9"))]
    );
    assert!(found.to_string().contains("~ package libc6: 2.41-1 -> 2.41-2"));
}

#[test]
fn what_differs_in_its_time_alone_is_counted_for_people_and_named_for_programs() {
    let at = |mtime| {
        let mut tree = Tree::new();
        let node = Node::File { meta: Meta::root_owned(0o644, mtime), content: Content::bytes(*b"x") };
        tree.insert(TreePath::new("stamp").unwrap(), node);
        tree
    };
    let found = compare(&[("base", at(1))], &[("base", at(2))]);
    assert_eq!(paths(&found.images[0]), [("/stamp", State::Changed, &[Change::Time][..])]);
    let text = found.to_string();
    assert!(!text.contains("/stamp") && text.contains("1 more"), "{text}");
    assert_eq!(serde_json::to_value(&found).unwrap()["images"][0]["files"][0]["what"][0], "time");
}
