//! What differs between two artifacts: statement, boot partition, and of each image layers, packages and files.
//!
//! Images whose layers are the same are not opened. Of the others the headers of each layer are read once; bytes of a
//! file are read only where they lie in different layers and are equally many.

mod text;
mod tree;

use super::contents::{Contents, ContentsError, Image, Indexes};
use gap_format::Digest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How one artifact differs from the other.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether index, layout and length are the same, and so every byte but the signatures.
    pub identical: bool,
    /// Fields of the statement that differ, and the signers.
    pub statement: Vec<Field>,
    /// The boot partition; `None` where neither is a disk.
    pub boot: Option<State>,
    /// The images by name: those of the first in its order, then what the second adds.
    pub images: Vec<ImageDifference>,
}

/// A field of the statement.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name.
    pub field: &'static str,
    /// What the first artifact says; none where it says nothing.
    pub old: Option<String>,
    /// What the second says.
    pub new: Option<String>,
}

/// How the second artifact's part relates to the first's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The same bytes.
    Same,
    /// Other bytes.
    Changed,
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Gone,
}

/// How an image differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ImageDifference {
    /// Its name, not escaped.
    pub name: String,
    /// Whether its manifest differs.
    pub state: State,
    /// Its layers by name: those of the first in its order, then what the second adds.
    pub layers: Vec<LayerDifference>,
    /// Whether layers that both have lie in another order.
    pub reordered: bool,
    /// Packages that differ, by name.
    pub packages: Vec<Package>,
    /// Files that differ, by path.
    pub files: Vec<FileDifference>,
}

/// How a layer differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LayerDifference {
    /// Its name, not escaped.
    pub name: String,
    /// Whether its bytes differ.
    pub state: State,
}

/// A package whose version differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name, not escaped.
    pub name: String,
    /// Its version in the first artifact; none where it is not there.
    pub old: Option<String>,
    /// Its version in the second.
    pub new: Option<String>,
}

/// A file that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Absolute path, escaped.
    pub path: String,
    /// Added, gone or changed.
    pub state: State,
    /// What of it changed; empty unless it is in both.
    pub what: Vec<Change>,
}

/// What of a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is of another kind: a link instead of a file.
    Kind,
    /// Its bytes, its link target, or its device number.
    Content,
    /// Its permission bits.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its time of last change.
    Time,
    /// Its extended attributes.
    Attributes,
}

impl State {
    /// Of two values, where the part may be missing.
    fn of<T: PartialEq>(old: Option<T>, new: Option<T>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (None, Some(_)) => Some(Self::Added),
            (Some(_), None) => Some(Self::Gone),
            (Some(old), Some(new)) if old == new => Some(Self::Same),
            (Some(_), Some(_)) => Some(Self::Changed),
        }
    }
}

/// Compares two artifacts.
///
/// # Errors
/// [`ContentsError`] if a layer that has to be opened is malformed or cannot be read.
pub fn difference(old: &Contents, new: &Contents) -> Result<Difference, ContentsError> {
    let mut indexes = Indexes::new();
    let (a, b) = (by_name(old), by_name(new));
    let names = in_order(old.images().iter().map(name), new.images().iter().map(name));
    let images = names.into_iter().map(|name| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) => both((old, a), (new, b), &mut indexes),
        (a, b) => Ok(one_sided(name, a.copied(), b.copied())),
    });
    let (a, b) = (old.release().statement(), new.release().statement());
    Ok(Difference {
        identical: (a.index, a.layout, a.length) == (b.index, b.layout, b.length) && a.release == b.release,
        statement: fields(old, new),
        boot: State::of(old.esp().map(|esp| esp.digest), new.esp().map(|esp| esp.digest)),
        images: images.collect::<Result<_, _>>()?,
    })
}

fn name(image: &Image) -> &str {
    &image.name
}

fn by_name(contents: &Contents) -> BTreeMap<&str, &Image> {
    contents.images().iter().map(|image| (image.name.as_str(), image)).collect()
}

/// The first's in their order, then what only the second has; each once.
fn in_order<'a>(old: impl Iterator<Item = &'a str>, new: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    old.chain(new).filter(|name| seen.insert(*name)).collect()
}

fn both(
    (old, a): (&Contents, &Image),
    (new, b): (&Contents, &Image),
    indexes: &mut Indexes,
) -> Result<ImageDifference, ContentsError> {
    let mut found = ImageDifference {
        name: a.name.clone(),
        state: if a.digest == b.digest { State::Same } else { State::Changed },
        layers: layers(Some(a), Some(b)),
        reordered: reordered(a, b),
        packages: Vec::new(),
        files: Vec::new(),
    };
    let digests = |image: &Image| image.layers.iter().map(|layer| layer.blob.digest).collect::<Vec<Digest>>();
    if digests(a) != digests(b) {
        let trees = (old.tree(a, indexes)?, new.tree(b, indexes)?);
        let (a, b) = (tree::Side::new(old, a, &trees.0), tree::Side::new(new, b, &trees.1));
        found.packages = tree::packages(&a, &b)?;
        found.files = tree::files(&a, &b)?;
    }
    Ok(found)
}

fn one_sided(name: &str, a: Option<&Image>, b: Option<&Image>) -> ImageDifference {
    ImageDifference {
        name: name.to_owned(),
        state: if a.is_some() { State::Gone } else { State::Added },
        layers: layers(a, b),
        reordered: false,
        packages: Vec::new(),
        files: Vec::new(),
    }
}

fn layer_names(image: Option<&Image>) -> impl Iterator<Item = &str> {
    image.into_iter().flat_map(|image| &image.layers).map(|layer| layer.name.as_str())
}

fn layers(a: Option<&Image>, b: Option<&Image>) -> Vec<LayerDifference> {
    let digest = |image: Option<&Image>, name: &str| {
        image?.layers.iter().find(|layer| layer.name == name).map(|layer| layer.blob.digest)
    };
    let state = |name: &str| State::of(digest(a, name), digest(b, name));
    let names = in_order(layer_names(a), layer_names(b)).into_iter();
    names.filter_map(|name| Some(LayerDifference { name: name.to_owned(), state: state(name)? })).collect()
}

fn reordered(a: &Image, b: &Image) -> bool {
    let shared = |image, other| {
        let others: BTreeSet<&str> = layer_names(Some(other)).collect();
        layer_names(Some(image)).filter(|name| others.contains(name)).collect::<Vec<_>>()
    };
    shared(a, b) != shared(b, a)
}

fn fields(old: &Contents, new: &Contents) -> Vec<Field> {
    let (a, b) = (said(old), said(new));
    a.into_iter()
        .zip(b)
        .filter(|((_, old), (_, new))| old != new)
        .map(|((field, old), (_, new))| Field { field, old, new })
        .collect()
}

/// What an artifact says about itself, always the same fields in the same order.
fn said(contents: &Contents) -> [(&'static str, Option<String>); 10] {
    let statement = contents.release().statement();
    let release = &statement.release;
    let signers: Vec<String> = contents.release().claimed_signers().iter().map(ToString::to_string).collect();
    [
        ("kind", Some(release.kind.to_string())),
        ("name", Some(release.name.clone())),
        ("version", Some(release.version.clone())),
        ("serial", Some(release.serial.to_string())),
        ("rollback_to", Some(release.rollback_to.to_string())),
        ("architecture", Some(release.architecture.clone())),
        ("source_date", Some(release.source_date.to_string())),
        ("expires", release.expires.map(|time| time.to_string())),
        ("length", Some(statement.length.to_string())),
        ("signatures", (!signers.is_empty()).then(|| signers.join(" "))),
    ]
}

#[cfg(test)]
mod tests;
