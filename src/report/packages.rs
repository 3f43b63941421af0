//! The Debian packages that an image says it holds.

use super::contents::{Contents, ContentsError, Image};
use crate::{
    image::merge::{Extent, Inode, InodeKind},
    source::debian::deb822::{Paragraph, Parser},
};
use std::collections::BTreeMap;

/// Where dpkg keeps its database.
const STATUS: &[u8] = b"var/lib/dpkg/status";
/// Where images that dpkg does not manage describe each package in a file of its own.
const STATUS_DIR: &[u8] = b"var/lib/dpkg/status.d/";
/// Largest file read, in bytes; a full desktop system's is 10 MiB.
const MAX_STATUS: u64 = 64 << 20;

/// Versions of packages by name.
pub type Packages = BTreeMap<String, String>;

/// The packages of `image`, whose files are `files` by path without a leading slash.
///
/// What cannot be read as a package description is passed over: packages are told for convenience, files are compared
/// in any case.
///
/// # Errors
/// [`ContentsError::Read`] if the bytes cannot be read.
pub fn packages(
    contents: &Contents,
    image: &Image,
    files: &BTreeMap<Vec<u8>, &Inode>,
) -> Result<Packages, ContentsError> {
    let mut found = Packages::new();
    let below = files.range(STATUS_DIR.to_vec()..).take_while(|(path, _)| path.starts_with(STATUS_DIR));
    let sums = |path: &[u8]| path.ends_with(b".md5sums");
    for (path, inode) in files.get_key_value(STATUS).into_iter().chain(below) {
        if let InodeKind::File(extent) = &inode.kind
            && extent.len <= MAX_STATUS
            && !sums(path)
        {
            read(&text(contents, image, extent)?, &mut found);
        }
    }
    Ok(found)
}

fn text(contents: &Contents, image: &Image, extent: &Extent) -> Result<String, ContentsError> {
    // The length is at most MAX_STATUS.
    let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or_default()];
    contents.read(image, extent, 0, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(text: &str, found: &mut Packages) {
    let mut parser = Parser::new(text);
    let mut paragraph = Paragraph::default();
    while parser.read(&mut paragraph).unwrap_or(false) {
        let named = paragraph.get("Package").zip(paragraph.get("Version"));
        if let Some((name, version)) = named.filter(|_| is_present(paragraph.get("Status"))) {
            found.insert(name.to_owned(), version.to_owned());
        }
    }
}

/// dpkg also remembers packages that were removed (dpkg(1), "Package states").
fn is_present(status: Option<&str>) -> bool {
    let state = status.and_then(|status| status.split_ascii_whitespace().last());
    !matches!(state, Some("not-installed" | "config-files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_and_broken_descriptions_do_not_count() {
        let mut found = Packages::new();
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok \
                      config-files\nVersion: 2\n\nPackage: c\n\nPackage: d\nVersion: 4\n\nbroken\n\nPackage: e\nVersion: 5\n";
        read(status, &mut found);
        assert_eq!(found, [("a", "1"), ("d", "4")].map(|(name, version)| (name.to_owned(), version.to_owned())).into());
    }
}
