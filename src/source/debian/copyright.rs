//! Licences of a package, from its machine-readable copyright file (copyright-format 1.0, DEP-5).

use super::deb822;
use crate::layer::tree::{Content, Node, Tree, TreePath};
use std::collections::BTreeSet;

/// What stands for a copyright file that no machine can read.
pub const UNREADABLE: &str = "LicenseRef-debian-copyright";
/// Largest copyright file read.
const COPYRIGHT_MAX: u64 = 8 << 20;

/// The licences of a package by its copyright file in the tree, following links within the tree;
/// `None` if it has none there (its documentation may be another package's).
pub fn of_package(tree: &Tree, package: &str) -> Option<Vec<String>> {
    let mut path = TreePath::new(format!("usr/share/doc/{package}/copyright")).ok()?;
    for _ in 0..8 {
        match tree.get(&path)? {
            Node::File { content, .. } => return read(content),
            Node::HardLink { target } => path = target.clone(),
            Node::Symlink { target, .. } => path = follow(&path, target)?,
            _ => return None,
        }
    }
    None
}

fn read(content: &Content) -> Option<Vec<String>> {
    (content.len() <= COPYRIGHT_MAX).then(|| content.read().ok()).flatten().map(|data| licences(&data))
}

fn follow(path: &TreePath, target: &[u8]) -> Option<TreePath> {
    if target.starts_with(b"/") {
        return TreePath::new(target).ok();
    }
    let mut directory = path.parent()?;
    for component in target.split(|&byte| byte == b'/') {
        directory = match component {
            b".." => directory.parent()?,
            _ => directory.join(component).ok()?,
        };
    }
    Some(directory)
}

/// The licences that a copyright file names, sorted, as SPDX writes them where it knows them and as
/// `LicenseRef-debian-…` otherwise; [`UNREADABLE`] alone if it is not machine-readable.
pub fn licences(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let found = deb822::parse(&text).ok().filter(|paragraphs| is_machine_readable(paragraphs)).map(|paragraphs| {
        let fields = paragraphs.iter().filter_map(|paragraph| paragraph.get("License"));
        let synopses = fields.filter_map(|field| field.lines().next());
        synopses.flat_map(names).map(|name| spdx(&name)).collect::<BTreeSet<String>>()
    });
    match found {
        Some(found) if !found.is_empty() => found.into_iter().collect(),
        _ => vec![UNREADABLE.to_owned()],
    }
}

fn is_machine_readable(paragraphs: &[deb822::Paragraph<'_>]) -> bool {
    let format = paragraphs.first().and_then(|paragraph| paragraph.get("Format"));
    format.is_some_and(|format| format.contains("copyright-format") || format.to_ascii_lowercase().contains("dep5"))
}

/// The licences of a synopsis such as `GPL-2+ or Artistic, and BSD-3-clause`.
fn names(synopsis: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut current: Vec<&str> = Vec::new();
    let flush = |current: &mut Vec<&str>, names: &mut Vec<String>| {
        if !current.is_empty() {
            names.push(std::mem::take(current).join(" "));
        }
    };
    for word in synopsis.split_ascii_whitespace() {
        let bare = word.trim_end_matches([',', ';']);
        if matches!(bare, "and" | "or" | "and/or") {
            flush(&mut current, &mut names);
        } else if !bare.is_empty() {
            current.push(bare);
        }
        if bare != word {
            flush(&mut current, &mut names);
        }
    }
    flush(&mut current, &mut names);
    names
}

/// Longest short name; what is longer is a sentence.
const NAME_MAX: usize = 64;

/// Debian's short name as an SPDX identifier.
fn spdx(name: &str) -> String {
    if name.len() > NAME_MAX {
        return UNREADABLE.to_owned();
    }
    const KNOWN: [(&str, &str); 35] = [
        ("0bsd", "0BSD"),
        ("apache-2", "Apache-2.0"),
        ("apache-2.0", "Apache-2.0"),
        ("artistic", "Artistic-1.0-Perl"),
        ("artistic-2.0", "Artistic-2.0"),
        ("bsd-2-clause", "BSD-2-Clause"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("bsd-4-clause", "BSD-4-Clause"),
        ("beerware", "Beerware"),
        ("bsl-1.0", "BSL-1.0"),
        ("cc0", "CC0-1.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("cc-by-3.0", "CC-BY-3.0"),
        ("cc-by-4.0", "CC-BY-4.0"),
        ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
        ("curl", "curl"),
        ("expat", "MIT"),
        ("fsfap", "FSFAP"),
        ("fsful", "FSFUL"),
        ("fsfullr", "FSFULLR"),
        ("gfdl-niv-1.3", "GFDL-1.3-no-invariants-only"),
        ("gfdl-niv-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("isc", "ISC"),
        ("latex2e", "Latex2e"),
        ("mit", "MIT"),
        ("mpl-1.1", "MPL-1.1"),
        ("mpl-2.0", "MPL-2.0"),
        ("ms-pl", "MS-PL"),
        ("openssl", "OpenSSL"),
        ("psf-2", "PSF-2.0"),
        ("sleepycat", "Sleepycat"),
        ("unicode", "Unicode-DFS-2016"),
        ("x11", "X11"),
        ("zlib", "Zlib"),
    ];
    let lower = name.to_ascii_lowercase();
    if let Some((_, spdx)) = KNOWN.iter().find(|(debian, _)| *debian == lower) {
        return (*spdx).to_owned();
    }
    gnu(name, &lower).unwrap_or_else(|| {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
        format!("LicenseRef-debian-{}", name.chars().map(safe).collect::<String>())
    })
}

/// `GPL-2+` is `GPL-2.0-or-later`, `LGPL-2.1` is `LGPL-2.1-only`; an exception makes it a reference.
fn gnu(name: &str, lower: &str) -> Option<String> {
    let (family, version) = name.split_once('-')?;
    if !matches!(family, "GPL" | "LGPL" | "AGPL" | "GFDL") || lower.contains(' ') {
        return None;
    }
    let (number, suffix) = match version.strip_suffix('+').or_else(|| version.strip_suffix("-or-later")) {
        Some(number) => (number, "or-later"),
        None => (version.strip_suffix("-only").unwrap_or(version), "only"),
    };
    let dotted = match number {
        "1" | "2" | "3" if family != "GFDL" => format!("{number}.0"),
        "1.1" | "1.2" | "1.3" | "2.0" | "2.1" | "3.0" => number.to_owned(),
        _ => return None,
    };
    Some(format!("{family}-{dotted}-{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::Meta;

    const DEP5: &str = "Format: copyright-format/1.0\n\n\
        Files: *\nCopyright: x\nLicense: GPL-2+ or Artistic, and Expat\n text\n\n\
        Files: a\nCopyright: y\nLicense: GPL-3+ with Bison exception\n\nLicense: LGPL-2.1\n text\n\nLicense: GPL-2.0-only\n";

    #[test]
    fn licences_are_named_as_spdx_does() {
        assert_eq!(
            licences(DEP5.as_bytes()),
            [
                "Artistic-1.0-Perl",
                "GPL-2.0-only",
                "GPL-2.0-or-later",
                "LGPL-2.1-only",
                "LicenseRef-debian-GPL-3--with-Bison-exception",
                "MIT"
            ]
        );
    }

    #[test]
    fn prose_is_a_reference() {
        for text in ["This package was debianized by …\n\nLicense: GPL\n", "", "Format: copyright-format\n"] {
            assert_eq!(licences(text.as_bytes()), [UNREADABLE]);
        }
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        let mut tree = Tree::new();
        let meta = || Meta::root_owned(0o644, 0);
        let path = |text: &str| TreePath::new(text).unwrap();
        tree.insert(
            path("usr/share/doc/a/copyright"),
            Node::Symlink { meta: meta(), target: b"../b/copyright".to_vec() },
        );
        assert_eq!(of_package(&tree, "a"), None);
        let content = Content::bytes(DEP5.as_bytes().to_vec());
        tree.insert(path("usr/share/doc/b/copyright"), Node::File { meta: meta(), content });
        assert_eq!(of_package(&tree, "a").unwrap().len(), 6);
    }
}
