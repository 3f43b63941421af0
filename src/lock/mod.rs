//! The lock: every input of a recipe by digest, in `NAME.lock` beside `NAME.toml`.
//!
//! TOML in one canonical form: the same content is the same bytes. It names no host, so any mirror serves it. A row is
//! there only because something was resolved, and a key that is not known is refused.

mod debian;
mod error;
mod models;
mod renew;
mod request;
mod resolve;
mod sources;
#[cfg(test)]
mod tests;

pub use error::{Change, LockError};
pub use renew::{LayerError, Purpose, RenewError, Renewal, Renewed};
pub use request::request;
pub use resolve::{Previous, Relock};

use crate::{
    recipe::{Arch, PlacedLayer, Recipe},
    source::{
        cargo::LockedCargo,
        dataset::LockedDataset,
        debian::{DEFAULT_ARCHIVE, LockedPackage},
        model::{LockedModel, LockedModelPart},
        wheels::LockedWheels,
    },
};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The version of the file format that is written and read.
const VERSION: u64 = 1;
/// Longest lock accepted, in bytes.
const MAX_LEN: u64 = 64 * 1024 * 1024;
/// The first lines of the file.
const HEADER: &str = "# Every input of the recipe beside this file, by digest. Written by `gapimage lock`; keep it under\n\
                      # version control, and let `gapimage lock --update` change it.\n\n";

/// A whole lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// The signed releases of Debian archives that packages were resolved from.
    pub archives: Vec<Archive>,
    /// One set of rows for each layer in each place where it stands.
    pub layers: Vec<LockedLayer>,
}

/// A signed release of a Debian archive: its `InRelease` file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Archive {
    /// The suite that was asked for.
    pub suite: String,
    /// The codename that the release gives itself.
    pub codename: String,
    /// When the archive made it, seconds since 1970.
    #[serde(with = "date")]
    pub date: i64,
    /// SHA-256 of the `InRelease` file.
    pub sha256: Digest,
}

/// What one layer in one place was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedLayer {
    /// Its name in the recipe.
    pub name: String,
    /// The layers below that it was resolved on, bottom to top.
    pub below: Vec<String>,
    /// Hash of what the recipe asked for ([`request`]).
    pub request: Digest,
    /// What came of it.
    pub inputs: Inputs,
}

/// The inputs of a layer, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Inputs {
    /// Packages of a Debian archive.
    Debian(LockedDebian),
    /// Crates, toolchain and sources of a binary.
    Cargo(LockedCargo),
    /// Files from beside the recipe.
    Files(LockedFiles),
    /// Packages of a Python index.
    Wheels(LockedWheels),
    /// A model.
    Model(LockedModel),
    /// What a program makes of other layers.
    Run(LockedRun),
    /// The files of a data set.
    Dataset(LockedDataset),
}

/// Packages of a Debian archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDebian {
    /// The [`Archive`]s that they were resolved from, by digest.
    pub releases: Vec<Digest>,
    /// The packages that the layer adds to those below.
    #[serde(default, rename = "package", skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<LockedPackage>,
}

/// Files from beside the recipe, by the layer that they make: its digest covers names, modes and contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedFiles {
    /// SHA-256 of the layer's tar.
    pub layer: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What a program makes: all that it is made of are other layers and what the recipe says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedRun {}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    version: u64,
    #[serde(default, with = "date::optional", skip_serializing_if = "Option::is_none")]
    source_date: Option<i64>,
    #[serde(default, rename = "archive", skip_serializing_if = "Vec::is_empty")]
    archives: Vec<Archive>,
    #[serde(default, rename = "layer", skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LockedLayer>,
}

/// Only the version, whatever else there is.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Lock {
    /// Where the lock of the recipe at `recipe` lies.
    pub fn path_for(recipe: &Path) -> PathBuf {
        recipe.with_extension("lock")
    }

    /// Reads a lock; `None` if there is no such file.
    ///
    /// # Errors
    /// [`LockError`] if it cannot be read, is of another version, holds unknown keys or contradicts itself.
    pub fn load(path: &Path) -> Result<Option<Self>, LockError> {
        let unreadable = |source| LockError::Unreadable { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = String::new();
        file.take(MAX_LEN + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_LEN {
            return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
        }
        Self::parse(&text, path).map(Some)
    }

    /// Decodes a lock; `path` is for messages.
    ///
    /// # Errors
    /// As for [`Lock::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let malformed =
            |error: toml::de::Error| LockError::Malformed { path: path.to_owned(), source: Box::new(error) };
        let Versioned { version } = toml::from_str(text).map_err(malformed)?;
        if version != VERSION {
            return Err(LockError::Version { path: path.to_owned(), found: version, known: VERSION });
        }
        let document: Document = toml::from_str(text).map_err(malformed)?;
        let lock = Self { archives: document.archives, layers: document.layers };
        let contradiction = lock.contradiction().or_else(|| {
            (document.source_date != lock.newest_release())
                .then(|| "`source-date` is not the date of the newest archive".to_owned())
        });
        match contradiction {
            Some(what) => Err(LockError::Contradiction { path: path.to_owned(), what }),
            None => Ok(lock),
        }
    }

    /// The one text of this content.
    ///
    /// # Errors
    /// [`LockError::Unwritable`] if something in it cannot be written as TOML.
    pub fn to_text(&self) -> Result<String, LockError> {
        let mut lock = self.clone();
        lock.put_in_order();
        let source_date = lock.newest_release();
        let document = Document { version: VERSION, source_date, archives: lock.archives, layers: lock.layers };
        let body = toml::to_string(&document).map_err(|error| LockError::Unwritable(Box::new(error)))?;
        Ok(format!("{HEADER}{body}"))
    }

    /// Writes the lock to `path`, whole or not at all. A file that holds it already is left alone.
    ///
    /// # Errors
    /// [`LockError`]; the file before is untouched then.
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        let text = self.to_text()?;
        if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let failed = |source| LockError::NotSaved { path: path.to_owned(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().permissions(permissions()).tempfile_in(dir).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// The date that the whole release goes by: that of the newest archive release; 1970 without one. Seconds since
    /// 1970.
    pub fn source_date(&self) -> i64 {
        self.newest_release().unwrap_or(0)
    }

    /// The rows of a layer in its place.
    pub fn layer(&self, place: &PlacedLayer<'_>) -> Option<&LockedLayer> {
        self.layers.iter().find(|layer| layer.is_at(place))
    }

    /// Notes what the files of a layer make now.
    pub fn set_files(&mut self, row: &LockedLayer, layer: Digest, size: u64) {
        let same = |other: &&mut LockedLayer| other.name == row.name && other.below == row.below;
        if let Some(row) = self.layers.iter_mut().find(same) {
            row.inputs = Inputs::Files(LockedFiles { layer, size });
        }
    }

    /// Checks that the lock answers exactly what the recipe asks.
    ///
    /// # Errors
    /// [`LockError::Stale`] with all differences.
    pub fn check(&self, recipe: &Recipe) -> Result<(), LockError> {
        let places = recipe.placed_layers();
        let mut changes = Vec::new();
        for place in &places {
            let name = || place.layer.name.clone();
            match self.layer(place) {
                Some(locked) if locked.request == request(place, recipe.appliance.arch) => {}
                Some(_) => changes.push(Change::Asked(name())),
                None if self.layers.iter().any(|layer| layer.name == place.layer.name) => {
                    changes.push(Change::Moved(name()));
                }
                None => changes.push(Change::Added(name())),
            }
        }
        for locked in self.layers.iter().filter(|locked| !places.iter().any(|place| locked.is_at(place))) {
            let is_known = places.iter().any(|place| place.layer.name == locked.name);
            changes.push(if is_known { Change::Moved } else { Change::Gone }(locked.name.clone()));
        }
        changes.sort();
        changes.dedup();
        match changes.is_empty() {
            true => Ok(()),
            false => Err(LockError::Stale { recipe: recipe.path.clone(), changes }),
        }
    }

    /// Notes what the files of a model in a directory make now, layer by layer.
    pub fn set_model_parts(&mut self, row: &LockedLayer, parts: Vec<LockedModelPart>) {
        let same = |other: &&mut LockedLayer| other.name == row.name && other.below == row.below;
        if let Some(Inputs::Model(LockedModel::Directory(model))) =
            self.layers.iter_mut().find(same).map(|row| &mut row.inputs)
        {
            model.parts = parts;
        }
    }

    fn newest_release(&self) -> Option<i64> {
        self.archives.iter().map(|archive| archive.date).max()
    }

    /// Sorts everything whose order means nothing, and drops archives that no layer refers to.
    fn put_in_order(&mut self) {
        self.layers.sort_by(|a, b| (&a.name, &a.below).cmp(&(&b.name, &b.below)));
        let mut used = BTreeSet::new();
        for layer in &mut self.layers {
            match &mut layer.inputs {
                Inputs::Debian(debian) => {
                    debian.releases.sort();
                    debian.releases.dedup();
                    used.extend(debian.releases.iter().copied());
                    debian.packages.sort_by(|a, b| (&a.name, &a.arch, &a.version).cmp(&(&b.name, &b.arch, &b.version)));
                }
                Inputs::Cargo(cargo) => {
                    cargo.crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
                }
                Inputs::Dataset(dataset) => dataset.files.sort(),
                Inputs::Wheels(wheels) => {
                    wheels.wheels.sort_by(|a, b| a.name.cmp(&b.name));
                    wheels.sdists.sort_by(|a, b| a.name.cmp(&b.name));
                }
                Inputs::Model(LockedModel::Hub(model)) => model.files.sort(),
                Inputs::Model(LockedModel::Directory(_)) | Inputs::Files(_) | Inputs::Run(_) => {}
            }
        }
        self.archives.retain(|archive| used.contains(&archive.sha256));
        self.archives.sort();
        self.archives.dedup();
    }

    /// The first thing in the lock that cannot be.
    fn contradiction(&self) -> Option<String> {
        let mut places = BTreeSet::new();
        for layer in &self.layers {
            if !places.insert((&layer.name, &layer.below)) {
                return Some(format!("the layer `{}` is there twice", layer.name.escape_debug()));
            }
            let found = match &layer.inputs {
                Inputs::Debian(debian) => self.debian_contradiction(debian),
                Inputs::Cargo(cargo) => cargo.contradiction(),
                Inputs::Model(model) => model.contradiction(),
                Inputs::Dataset(dataset) => dataset.contradiction(),
                Inputs::Files(_) | Inputs::Run(_) => None,
                Inputs::Wheels(wheels) => wheels.contradiction(),
            };
            if let Some(what) = found {
                return Some(format!("in the layer `{}`, {what}", layer.name.escape_debug()));
            }
        }
        None
    }

    fn debian_contradiction(&self, debian: &LockedDebian) -> Option<String> {
        let unknown = |release: &&Digest| !self.archives.iter().any(|archive| archive.sha256 == **release);
        if let Some(release) = debian.releases.iter().find(unknown) {
            return Some(format!("there is no archive with the digest {release}"));
        }
        let mut names = BTreeSet::new();
        for package in &debian.packages {
            let shown = package.name.escape_debug();
            if !names.insert((&package.name, &package.arch)) {
                return Some(format!("the package `{shown}` is there twice"));
            }
            if !is_pool_path(&package.path) {
                return Some(format!("the path of the package `{shown}` leads out of the archive"));
            }
        }
        None
    }
}

/// Stands for a package that a layer assumes to be there: it satisfies what others ask of it, whatever the version, and
/// is in no lock.
pub fn assumed(name: &str, arch: Arch) -> LockedPackage {
    LockedPackage {
        name: name.to_owned(),
        version: "999999999:0".to_owned(),
        arch: arch.debian().to_owned(),
        size: 0,
        sha256: Digest::of(b""),
        path: String::new(),
        archive: DEFAULT_ARCHIVE.to_owned(),
        installed_size: 0,
        order: 0,
        provides: String::new(),
        conflicts: String::new(),
        licenses: Vec::new(),
    }
}

impl LockedLayer {
    /// Whether these are the rows for a layer in this place.
    pub fn is_at(&self, place: &PlacedLayer<'_>) -> bool {
        self.name == place.layer.name && self.below == place.below
    }
}

/// Whether a path stays below the archive's root and can be put into an address as it is.
fn is_pool_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-~:%=@".contains(&byte);
    path.len() < 4096
        && path.bytes().all(allowed)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// Dates as TOML writes them, in UTC and whole seconds.
mod date {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use toml::value::Datetime;

    pub fn serialize<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = jiff::Timestamp::from_second(*seconds).map_err(ser::Error::custom)?;
        instant.to_string().parse::<Datetime>().map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let datetime = Datetime::deserialize(deserializer)?;
        let instant: jiff::Timestamp = datetime.to_string().parse().map_err(de::Error::custom)?;
        Ok(instant.as_second())
    }

    pub mod optional {
        use serde::{Deserializer, Serializer};

        pub fn serialize<S: Serializer>(seconds: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
            match seconds {
                Some(seconds) => super::serialize(seconds, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}
