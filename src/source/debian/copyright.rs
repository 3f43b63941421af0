//! Licences of a package, from its copyright file (Debian policy 12.5): machine-readable ones (copyright-format 1.0, DEP-5)
//! word by word, others by the texts in `/usr/share/common-licenses` that they refer to.

mod name;
mod prose;
mod synopsis;

use super::deb822;
use crate::layer::tree::{Content, Node, Tree, TreePath};
use crate::source::licence::Licence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands for a copyright file, or the part of one, that no machine can read.
pub const UNREADABLE: &str = "LicenseRef-debian-copyright";
/// Largest copyright file read.
const COPYRIGHT_MAX: u64 = 8 << 20;
/// Most links that are followed, within a package and from package to package.
const LINKS_MAX: usize = 8;

/// Changes whenever something else is read out of the same package.
pub const FORMAT: u64 = 1;

/// What a package says of its licences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copyright {
    /// Its copyright file names these, sorted.
    Licences(Vec<String>),
    /// Its documentation is that of the package of this name.
    SameAs(String),
}

/// What a package says of its licences, from the copyright file in its own tree; `None` if there is no such file.
pub fn of_package(tree: &Tree, package: &str) -> Option<Copyright> {
    let wanted = TreePath::new(format!("usr/share/doc/{package}/copyright")).ok()?;
    match locate(tree, wanted)? {
        Located::File(content) => read(content).map(Copyright::Licences),
        Located::Absent(path) => {
            let path = std::str::from_utf8(path.as_bytes()).ok()?;
            let owner = path.strip_prefix("usr/share/doc/")?.strip_suffix("/copyright")?;
            (owner != package && !owner.contains('/')).then(|| Copyright::SameAs(owner.to_owned()))
        }
    }
}

/// The licences of each package of `said`; for one whose documentation is another's, those of the other, which may be
/// installed already: then `installed` knows them. Empty where nobody knows.
pub fn settle(
    said: &BTreeMap<String, Option<Copyright>>,
    installed: impl Fn(&str) -> Option<Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let licences = |package: &String| {
        let mut name = package;
        for _ in 0..LINKS_MAX {
            match said.get(name) {
                Some(Some(Copyright::Licences(licences))) => return licences.clone(),
                Some(Some(Copyright::SameAs(owner))) => name = owner,
                Some(None) => break,
                None => return installed(name).unwrap_or_default(),
            }
        }
        Vec::new()
    };
    said.keys().map(|package| (package.clone(), licences(package))).collect()
}

/// Where a path of a tree leads.
enum Located<'t> {
    File(&'t Content),
    /// Out of the tree, to this path.
    Absent(TreePath),
}

/// Follows links of the path's last component and of those above it.
fn locate(tree: &Tree, mut path: TreePath) -> Option<Located<'_>> {
    for _ in 0..=LINKS_MAX {
        path = match link_on(tree, &path) {
            Some((link, target)) => {
                let rest = path.as_bytes().strip_prefix(link.as_bytes()).unwrap_or_default();
                follow(&link, target)?.join(rest).ok()?
            }
            None => match tree.get(&path) {
                Some(Node::File { content, .. }) => return Some(Located::File(content)),
                Some(Node::HardLink { target }) => target.clone(),
                Some(_) => return None,
                None => return Some(Located::Absent(path)),
            },
        };
    }
    None
}

/// The uppermost symbolic link on the way to a path, and where it points.
fn link_on<'t>(tree: &'t Tree, path: &TreePath) -> Option<(TreePath, &'t [u8])> {
    let mut above: Vec<TreePath> = std::iter::successors(Some(path.clone()), TreePath::parent).collect();
    above.reverse();
    above.into_iter().find_map(|path| match tree.get(&path)? {
        Node::Symlink { target, .. } => Some((path, target.as_slice())),
        _ => None,
    })
}

fn follow(link: &TreePath, target: &[u8]) -> Option<TreePath> {
    let mut path = if target.starts_with(b"/") { TreePath::root() } else { link.parent()? };
    for component in target.split(|&byte| byte == b'/') {
        path = match component {
            b".." => path.parent()?,
            _ => path.join(component).ok()?,
        };
    }
    Some(path)
}

fn read(content: &Content) -> Option<Vec<String>> {
    (content.len() <= COPYRIGHT_MAX).then(|| content.read().ok()).flatten().map(|data| licences(&data))
}

/// The licences that a copyright file names, sorted: SPDX expressions that must all be kept to, as `LicenseRef-debian-…`
/// where SPDX has no name. [`UNREADABLE`] is among them if a part of it was not understood.
pub fn licences(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let found = deb822::parse(&text).ok().filter(|paragraphs| is_machine_readable(paragraphs)).map(|paragraphs| {
        let fields = paragraphs.iter().filter_map(|paragraph| paragraph.get("License"));
        fields.filter_map(|field| field.lines().next()).map(synopsis::expression).collect::<Vec<_>>()
    });
    let found = found.unwrap_or_else(|| prose::expressions(&text));
    let licence = Licence::all_of("debian", found);
    match licence.is_unknown() {
        true => vec![UNREADABLE.to_owned()],
        false => licence.conditions().map(str::to_owned).collect(),
    }
}

fn is_machine_readable(paragraphs: &[deb822::Paragraph<'_>]) -> bool {
    let format = paragraphs.first().and_then(|first| first.get("Format").or_else(|| first.get("Format-Specification")));
    let format = format.unwrap_or_default().to_ascii_lowercase();
    format.contains("copyright-format") || format.contains("dep5")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::Meta;

    const DEP5: &str = "Format: copyright-format/1.0\n\n\
        Files: *\nCopyright: x\nLicense: GPL-2+ or Artistic, and Expat\n text\n\n\
        Files: a\nCopyright: y\nLicense: GPL-3+ with Bison exception\n\nLicense: LGPL-2.1\n text\n\nLicense: GPL-2.0-only\n";

    #[test]
    fn machine_readable_files_are_read_to_the_word() {
        assert_eq!(
            licences(DEP5.as_bytes()),
            [
                "GPL-2.0-only",
                "GPL-2.0-or-later OR Artistic-1.0-Perl",
                "LGPL-2.1-only",
                "LicenseRef-debian-GPL-3--with-Bison-exception",
                "MIT"
            ]
        );
        assert_eq!(licences(b"Format-Specification: svn/dep5.mdwn\n\nFiles: *\nLicense: ISC\n"), ["ISC"]);
    }

    #[test]
    fn prose_is_marked_as_not_fully_understood() {
        for text in ["This package was debianized by \u{2026}\n\nLicense: GPL\n", "", "Format: copyright-format\n"] {
            assert_eq!(licences(text.as_bytes()), [UNREADABLE]);
        }
        let text = "Apache, see /usr/share/common-licenses/Apache-2.0.";
        assert_eq!(licences(text.as_bytes()), ["Apache-2.0", UNREADABLE]);
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn link(tree: &mut Tree, at: &str, target: &str) {
        tree.insert(path(at), Node::Symlink { meta: Meta::root_owned(0o777, 0), target: target.into() });
    }

    fn file(tree: &mut Tree, at: &str) {
        let content = Content::bytes(DEP5.as_bytes().to_vec());
        tree.insert(path(at), Node::File { meta: Meta::root_owned(0o644, 0), content });
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        for (at, target) in [
            ("usr/share/doc/a/copyright", "../b/copyright"),
            ("usr/share/doc/a/copyright", "/usr/share/doc/b//copyright"),
            ("usr/share/doc/a", "b"),
            ("usr/share/doc/a", "../doc/./b"),
        ] {
            let mut tree = Tree::new();
            link(&mut tree, at, target);
            assert_eq!(of_package(&tree, "a"), Some(Copyright::SameAs("b".into())), "{at} -> {target}");
            file(&mut tree, "usr/share/doc/b/copyright");
            let Some(Copyright::Licences(licences)) = of_package(&tree, "a") else { panic!("{at} -> {target}") };
            assert_eq!(licences.len(), 5);
        }
    }

    #[test]
    fn links_that_lead_nowhere_or_in_circles_say_nothing() {
        for (at, target) in [
            ("usr/share/doc/a", "../../../../../x"),
            ("usr/share/doc/a", "a"),
            ("usr/share/doc/a/copyright", "copyright"),
            ("usr/share/doc/a/copyright", "/etc/motd"),
            ("usr/share/doc/a", "b/c"),
        ] {
            let mut tree = Tree::new();
            link(&mut tree, at, target);
            assert_eq!(of_package(&tree, "a"), None, "{at} -> {target}");
        }
        assert_eq!(of_package(&Tree::new(), "a"), None);
    }

    #[test]
    fn licences_of_another_package_are_found_beside_or_below() {
        let same_as = |owner: &str| Some(Copyright::SameAs(owner.to_owned()));
        let said = [
            ("base", Some(Copyright::Licences(vec!["MIT".to_owned()]))),
            ("one", same_as("base")),
            ("two", same_as("one")),
            ("three", same_as("installed")),
            ("loop", same_as("loop")),
            ("lost", same_as("nowhere")),
            ("none", None),
        ];
        let said = said.map(|(name, copyright)| (name.to_owned(), copyright)).into();
        let settled = settle(&said, |name| (name == "installed").then(|| vec!["ISC".to_owned()]));
        let found: Vec<_> = settled.iter().map(|(name, licences)| (name.as_str(), licences.join(","))).collect();
        let expected = [
            ("base", "MIT"),
            ("loop", ""),
            ("lost", ""),
            ("none", ""),
            ("one", "MIT"),
            ("three", "ISC"),
            ("two", "MIT"),
        ];
        assert_eq!(found, expected.map(|(name, licences)| (name, licences.to_owned())));
    }
}
