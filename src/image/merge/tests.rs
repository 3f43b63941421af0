//! The rules of the changeset, each by an example.

use super::*;

fn path(raw: &str) -> TreePath {
    TreePath::new(raw).unwrap()
}

fn entry(raw: &str, mode: u32, kind: IndexKind) -> IndexEntry {
    IndexEntry { path: path(raw), meta: Meta::root_owned(mode, 7), kind }
}

fn directory(raw: &str, mode: u32) -> IndexEntry {
    entry(raw, mode, IndexKind::Directory { opaque: false })
}

fn opaque(raw: &str) -> IndexEntry {
    entry(raw, 0o700, IndexKind::Directory { opaque: true })
}

fn file(raw: &str, offset: u64) -> IndexEntry {
    entry(raw, 0o644, IndexKind::File { offset, len: 100 })
}

fn symlink(raw: &str, target: &str) -> IndexEntry {
    entry(raw, 0o777, IndexKind::Symlink(target.into()))
}

fn hard_link(raw: &str, target: &str) -> IndexEntry {
    entry(raw, 0, IndexKind::HardLink(path(target)))
}

fn whiteout(raw: &str) -> IndexEntry {
    entry(raw, 0, IndexKind::Whiteout)
}

fn merged(layers: &[&[IndexEntry]]) -> Result<Merged, MergeError> {
    let indexes: Vec<_> =
        layers.iter().map(|entries| LayerIndex { entries: entries.to_vec(), size: 1 << 20 }).collect();
    merge(&indexes.iter().collect::<Vec<_>>())
}

/// One line for each name: path, mode, links, and `layer+offset` of a file.
fn shown(layers: &[&[IndexEntry]]) -> Vec<String> {
    let tree = merged(layers).unwrap();
    tree.walk()
        .map(|(path, inode)| {
            let what = match &inode.kind {
                InodeKind::Directory(_) => "dir".to_owned(),
                InodeKind::File(extent) => format!("{}+{}", extent.layer, extent.offset),
                InodeKind::Symlink(target) => format!("-> {}", target.escape_ascii()),
                other => format!("{other:?}"),
            };
            format!("/{} {:o} {} {what}", path.escape_ascii(), inode.meta.mode, inode.links)
        })
        .collect()
}

#[test]
fn the_upper_file_wins_and_the_rest_stays() {
    let lower = [directory("a", 0o755), file("a/x", 512), file("a/y", 1024)];
    let upper = [file("a/x", 2048)];
    assert_eq!(shown(&[&lower, &upper]), ["/ 755 3 dir", "/a 755 2 dir", "/a/x 644 1 1+2048", "/a/y 644 1 0+1024"]);
}

#[test]
fn a_directory_over_a_directory_brings_its_metadata_and_keeps_the_children() {
    let lower = [directory("a", 0o755), file("a/x", 512)];
    assert_eq!(shown(&[&lower, &[directory("a", 0o700)]]), ["/ 755 3 dir", "/a 700 2 dir", "/a/x 644 1 0+512"]);
}

#[test]
fn a_file_replaces_a_directory_with_all_it_holds_and_the_reverse() {
    let lower = [directory("a", 0o755), directory("a/b", 0o755), file("a/b/c", 512), file("x", 1024)];
    let upper = [file("a", 0), directory("x", 0o750), file("x/y", 512)];
    assert_eq!(shown(&[&lower, &upper]), ["/ 755 3 dir", "/a 644 1 1+0", "/x 750 2 dir", "/x/y 644 1 1+512"]);
}

#[test]
fn a_directory_replaces_a_symbolic_link() {
    let upper = [directory("lib", 0o755), file("lib/x", 0)];
    assert_eq!(shown(&[&[symlink("lib", "usr/lib")], &upper]), ["/ 755 3 dir", "/lib 755 2 dir", "/lib/x 644 1 1+0"]);
}

#[test]
fn a_whiteout_hides_lower_layers_and_never_its_own() {
    let lower = [file("a/x", 512), file("a/y", 1024), directory("d/e", 0o755), file("d/e/f", 512)];
    let upper =
        [whiteout("a/x"), file("a/x", 0), whiteout("a/y"), file("d/new", 2048), whiteout("d"), whiteout("no/such")];
    assert_eq!(
        shown(&[&lower, &upper]),
        ["/ 755 4 dir", "/a 755 2 dir", "/a/x 644 1 1+0", "/d 755 2 dir", "/d/new 644 1 1+2048"]
    );
}

#[test]
fn an_opaque_directory_hides_what_lower_layers_hold_in_it_and_nothing_else() {
    let lower = [file("a/x", 512), directory("a/sub", 0o755), file("b", 1024)];
    let upper = [file("a/new", 0), opaque("a")];
    assert_eq!(shown(&[&lower, &upper]), ["/ 755 3 dir", "/a 700 2 dir", "/a/new 644 1 1+0", "/b 644 1 0+1024"]);
    assert_eq!(shown(&[&lower, &[opaque("")]]), ["/ 700 2 dir"]);
}

#[test]
fn hard_links_share_one_inode_within_and_across_layers() {
    let lower = [file("a", 512), hard_link("b", "a")];
    let upper = [hard_link("c/d", "b")];
    let tree = merged(&[&lower, &upper]).unwrap();
    assert_eq!(tree.inodes().len(), 3);
    let names: Vec<_> =
        tree.walk().filter(|(_, inode)| inode.links == 3 && inode.meta.mtime == 7).map(|(p, _)| p).collect();
    assert_eq!(names, [&b"a"[..], b"b", b"c/d"]);
}

#[test]
fn a_hard_link_keeps_the_file_whose_first_name_is_gone() {
    let lower = [file("a", 512)];
    let upper = [hard_link("b", "a")];
    let top = [whiteout("a")];
    assert_eq!(shown(&[&lower, &upper, &top]), ["/ 755 2 dir", "/b 644 1 0+512"]);
}

#[test]
fn a_hard_link_without_target_or_to_a_directory_is_refused() {
    let refused = |entries: &[IndexEntry]| merged(&[entries]).unwrap_err();
    assert!(matches!(refused(&[hard_link("b", "a"), file("a", 0)]), MergeError::NoTarget { .. }));
    assert!(matches!(refused(&[directory("a", 0o755), hard_link("b", "a")]), MergeError::LinkToDirectory { .. }));
    assert!(matches!(refused(&[file("a/b", 0), hard_link("a", "a/b")]), MergeError::NoTarget { .. }));
    assert!(matches!(refused(&[hard_link("b", "")]), MergeError::LinkToDirectory { .. }));
}

#[test]
fn no_path_leads_through_a_symbolic_link() {
    let lower = [symlink("out", "/etc"), symlink("a/in", ".")];
    for upper in
        [file("out/passwd", 0), directory("a/in/x", 0o755), whiteout("out/x"), hard_link("x", "out/x"), opaque("out/d")]
    {
        let error = merged(&[&lower, &[upper]]).unwrap_err();
        assert!(matches!(error, MergeError::ThroughSymlink { layer: 1, .. }), "{error}");
    }
    let error = merged(&[&lower, &[file("a/in/x", 0)]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 2: /a/in/x leads through the symbolic link /a/in; name the place it points to instead"
    );
}

#[test]
fn no_path_leads_through_a_file() {
    let error = merged(&[&[file("a", 0), file("a/b/c", 512)]]).unwrap_err();
    assert_eq!(error.to_string(), "layer 1: /a/b/c lies below /a, which is not a directory");
}

#[test]
fn parents_that_nobody_describes_are_made() {
    assert_eq!(shown(&[&[file("a/b/c", 0)]]), ["/ 755 3 dir", "/a 755 3 dir", "/a/b 755 2 dir", "/a/b/c 644 1 0+0"]);
    let tree = merged(&[&[file("a/b", 0), directory("a", 0o711)]]).unwrap();
    assert_eq!(tree.inodes()[1].meta, Meta::root_owned(0o711, 7), "a later entry describes the parent");
}

#[test]
fn the_root_takes_metadata_and_must_stay_a_directory() {
    assert_eq!(shown(&[&[directory("", 0o711)]]), ["/ 711 2 dir"]);
    for entry in [file("", 0), whiteout(""), hard_link("", "a")] {
        assert!(merged(&[&[file("a", 0), entry]]).is_err());
    }
}

#[test]
fn names_are_in_the_order_of_their_bytes() {
    let entries = [file("b", 0), file("a/z", 0), file("a-", 0), entry("\u{e9}", 0o600, IndexKind::Fifo), file("B", 0)];
    let paths: Vec<_> = merged(&[&entries]).unwrap().walk().map(|(path, _)| path).collect();
    assert_eq!(paths, [&b""[..], b"B", b"a", b"a/z", b"a-", b"b", "\u{e9}".as_bytes()]);
}

#[test]
fn only_the_last_entry_ends_its_layer() {
    let tree = merged(&[&[file("b", 0), file("a", 512)], &[file("c", 0), symlink("d", "c")]]).unwrap();
    let ends: Vec<_> = tree
        .walk()
        .filter_map(|(path, inode)| match &inode.kind {
            InodeKind::File(extent) => Some((path, extent.ends_layer)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(b"a".to_vec(), true), (b"b".to_vec(), false), (b"c".to_vec(), false)]);
}

#[test]
fn data_beyond_the_layer_and_unstorable_link_targets_are_refused() {
    let beyond = entry("a", 0o644, IndexKind::File { offset: u64::MAX - 10, len: 100 });
    assert!(matches!(merged(&[&[beyond]]), Err(MergeError::BeyondEnd { .. })));
    for target in [String::new(), "x".repeat(4096), "a\0b".to_owned()] {
        assert!(matches!(merged(&[&[symlink("l", &target)]]), Err(MergeError::Target { .. })));
    }
}

#[test]
fn a_very_deep_tree_is_merged_without_recursion() {
    let deep = "d/".repeat(2000) + "f";
    assert_eq!(merged(&[&[file(&deep, 0)]]).unwrap().inodes().len(), 2002);
}
