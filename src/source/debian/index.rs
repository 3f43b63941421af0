//! All packages of an archive's suites and components, searchable by name.

use super::{
    packages::{self, Package, PackagesError},
    relation::{self, Constraint, Operator, Relation},
    version,
};
use std::{cmp::Ordering, ops::Range};

/// The text of one `Packages` file whose digest was checked, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// Which archive serves its packages.
    pub archive: String,
    /// Suite or codename, as asked for.
    pub suite: String,
    /// Component, such as `main`.
    pub component: String,
    /// Whether its packages are taken only where no other suite's will do.
    pub not_automatic: bool,
    /// The `Packages` file.
    pub text: String,
}

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the package index of {suite}/{component}: {source}")]
pub struct IndexError {
    /// The suite.
    pub suite: String,
    /// The component.
    pub component: String,
    /// What is wrong with it.
    pub source: PackagesError,
}

/// A package on offer.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// The package.
    pub package: Package<'a>,
    /// Which of the index files offers it.
    pub file: &'a IndexFile,
}

/// A virtual package that some offer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Provided<'a> {
    name: &'a str,
    offer: usize,
    version: Option<&'a str>,
}

/// The offers for one architecture, sorted by name; of one name the preferred one first: suites
/// that are taken automatically before others, then by falling version.
#[derive(Debug)]
pub struct Index<'a> {
    arch: &'a str,
    offers: Vec<Offer<'a>>,
    /// Where each name's offers lie, sorted by name.
    names: Vec<Range<usize>>,
    provided: Vec<Provided<'a>>,
}

impl<'a> Index<'a> {
    /// Parses index files. Packages for other architectures than `arch` and `all` are left out; of
    /// the same version of a package, the first file's is taken.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn parse(files: &'a [IndexFile], arch: &'a str) -> Result<Self, IndexError> {
        let mut offers = Vec::with_capacity(files.iter().map(|file| file.text.len() / 800).sum());
        for file in files {
            packages::parse(&file.text, |package| {
                if package.architecture == arch || package.architecture == "all" {
                    offers.push(Offer { package, file });
                }
            })
            .map_err(|source| IndexError {
                suite: file.suite.clone(),
                component: file.component.clone(),
                source,
            })?;
        }
        // Stable, so that the order of the files decides between equals.
        offers.sort_by(|left, right| (left.package.name.cmp(right.package.name)).then_with(|| prefer(left, right)));
        offers.dedup_by(|later, first| {
            later.package.name == first.package.name && later.package.version == first.package.version
        });
        let names = name_ranges(&offers);
        let provided = provided(&offers, arch);
        Ok(Self { arch, offers, names, provided })
    }

    /// The architecture.
    pub const fn arch(&self) -> &'a str {
        self.arch
    }

    /// All offers, by name, preferred ones first.
    pub fn offers(&self) -> &[Offer<'a>] {
        &self.offers
    }

    /// Where each name's offers lie, sorted by name.
    pub fn names(&self) -> &[Range<usize>] {
        &self.names
    }

    /// Position of a name in [`Index::names`].
    pub fn find(&self, name: &str) -> Option<usize> {
        let name_at = |range: &Range<usize>| self.offers.get(range.start).map_or("", |offer| offer.package.name);
        self.names.binary_search_by(|range| name_at(range).cmp(name)).ok()
    }

    /// The offers of a name, preferred ones first.
    pub fn named(&self, name: &str) -> &[Offer<'a>] {
        let range = self.find(name).and_then(|position| self.names.get(position));
        range.and_then(|range| self.offers.get(range.clone())).unwrap_or_default()
    }

    /// Positions of the offers that provide the virtual package a relation names, and that satisfy
    /// its version; in the order of the offers.
    pub fn providers(&self, relation: &Relation<'_>) -> impl Iterator<Item = usize> + '_ {
        let start = self.provided.partition_point(|provided| provided.name < relation.name);
        let end = self.provided.partition_point(|provided| provided.name <= relation.name);
        let matching = self.provided.get(start..end).unwrap_or_default().iter();
        let constraint = relation.constraint.map(|constraint| (constraint.operator, constraint.version.to_owned()));
        matching.filter(move |provided| admits_provided(&constraint, provided.version)).map(|provided| provided.offer)
    }
}

/// An unversioned provide satisfies only unversioned relations (Policy 7.5).
fn admits_provided(constraint: &Option<(Operator, String)>, provided: Option<&str>) -> bool {
    match (constraint, provided) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some((operator, version)), Some(provided)) => Constraint { operator: *operator, version }.admits(provided),
    }
}

fn prefer(left: &Offer<'_>, right: &Offer<'_>) -> Ordering {
    (left.file.not_automatic.cmp(&right.file.not_automatic))
        .then_with(|| version::compare(right.package.version, left.package.version))
        // Two spellings of one version must not depend on the order in which they were read.
        .then_with(|| right.package.version.cmp(left.package.version))
}

fn name_ranges(offers: &[Offer<'_>]) -> Vec<Range<usize>> {
    let mut names = Vec::new();
    let mut start = 0;
    for chunk in offers.chunk_by(|left, right| left.package.name == right.package.name) {
        names.push(start..start + chunk.len());
        start += chunk.len();
    }
    names
}

fn provided<'a>(offers: &[Offer<'a>], arch: &str) -> Vec<Provided<'a>> {
    let mut provided = Vec::new();
    for (offer, Offer { package, .. }) in
        offers.iter().enumerate().filter(|(_, offer)| !offer.package.provides.is_empty())
    {
        // A field that cannot be read provides nothing; what depends on it will say so.
        for relation in relation::parse(package.provides, arch).unwrap_or_default().into_iter().flatten() {
            provided.push(provide(relation.name, &relation, offer));
        }
    }
    provided.sort_unstable();
    provided.dedup();
    provided
}

fn provide<'a>(name: &'a str, relation: &Relation<'a>, offer: usize) -> Provided<'a> {
    let version = relation.constraint.filter(|constraint| constraint.operator == Operator::Exactly);
    Provided { name, offer, version: version.map(|constraint| constraint.version) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An index file of terse lines: `name version | Field: value | …`.
    pub(in crate::source::debian) fn index_file(lines: &str) -> IndexFile {
        let mut text = String::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut parts = line.split(" ; ");
            let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
            text.push_str(&format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nSize: 1\nInstalled-Size: 1\n\
                 SHA256: {}\nFilename: pool/{name}_{}.deb\n",
                gap_format::Digest::of(line.as_bytes()).to_hex(),
                version.replace(':', "_")
            ));
            for part in parts {
                text.push_str(part);
                text.push('\n');
            }
            text.push('\n');
        }
        IndexFile {
            archive: "debian".to_owned(),
            suite: "test".to_owned(),
            component: "main".to_owned(),
            not_automatic: false,
            text,
        }
    }

    #[test]
    fn the_highest_version_of_the_automatic_suites_comes_first() {
        let mut backports = index_file("a 9\nb 1");
        backports.not_automatic = true;
        let files = [index_file("a 1.9\na 1.10\nb 1"), backports];
        let index = Index::parse(&files, "amd64").unwrap();
        let versions: Vec<_> = index.named("a").iter().map(|offer| offer.package.version).collect();
        assert_eq!(versions, ["1.10", "1.9", "9"]);
        assert_eq!(index.named("b").len(), 1);
        assert!(index.named("c").is_empty());
    }

    #[test]
    fn providers_answer_by_version() {
        let files = [index_file("a 1 ; Provides: v, w (= 2)\nb 1 ; Provides: w (= 3), v")];
        let index = Index::parse(&files, "amd64").unwrap();
        let providers = |field: &str| {
            let relations = relation::parse(field, "amd64").unwrap();
            index.providers(&relations[0][0]).map(|offer| index.offers()[offer].package.name).collect::<Vec<_>>()
        };
        assert_eq!(providers("v"), ["a", "b"]);
        assert_eq!(providers("v (>= 1)"), [""; 0]);
        assert_eq!(providers("w (>= 3)"), ["b"]);
        assert_eq!(providers("w"), ["a", "b"]);
    }
}
