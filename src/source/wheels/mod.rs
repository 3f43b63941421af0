//! Python packages as wheels: which ones, for the Python and the C library of the image, resolved by uv and pinned.
//!
//! uv chooses versions; everything else is done here, so that a wheel is never trusted further than its digest. Where
//! packages come from is the user's business ([`sources`]): locks hold file names and digests, and any index that has
//! these files serves them.

pub mod archive;
mod error;
mod fetch;
mod graph;
pub mod index;
pub mod metadata;
pub mod name;
mod netrc;
mod pip_config;
mod provided;
mod pylock;
mod remote;
mod resolve;
pub mod sdist;
mod sources;
mod taken;
pub mod target;
mod uv;

pub use error::WheelsError;
pub use fetch::fetch;
pub use graph::needed;
pub use provided::Provided;
pub use resolve::{Query, resolve};

use crate::recipe::Arch;
use gap_format::Digest;
use name::{ProjectName, WheelName};
use sdist::SdistName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use target::{Glibc, Python, Target};

/// What a lock says of a layer of wheels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedWheels {
    /// The Python that they are for.
    pub python: Python,
    /// The C library that they are for.
    pub glibc: Glibc,
    /// Projects that the image has from Debian packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provided: Vec<Provided>,
    /// The wheels, one for each project.
    #[serde(default, rename = "wheel", skip_serializing_if = "Vec::is_empty")]
    pub wheels: Vec<LockedWheel>,
    /// What is built from source instead.
    #[serde(default, rename = "sdist", skip_serializing_if = "Vec::is_empty")]
    pub sdists: Vec<LockedSdist>,
}

/// A source distribution as a lock pins it, and everything that it is built with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedSdist {
    /// The project.
    pub name: ProjectName,
    /// Its version.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Whether the recipe itself asks for the project.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// Licences that its metadata names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// What it says that it needs on this Python, `NAME[EXTRAS]SPECIFIERS`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The Python that builds it.
    pub python: Python,
    /// The wheels that it is built with.
    #[serde(default, rename = "build", skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<LockedWheel>,
}

/// A file of an index that a lock pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedFile<'f> {
    /// The project.
    pub name: &'f ProjectName,
    /// The file's name.
    pub file: &'f str,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl<'f> From<&'f LockedWheel> for PinnedFile<'f> {
    fn from(wheel: &'f LockedWheel) -> Self {
        Self { name: &wheel.name, file: &wheel.file, size: wheel.size, sha256: wheel.sha256 }
    }
}

impl LockedSdist {
    /// The source distribution and the wheels that it is built with.
    pub fn files(&self) -> impl Iterator<Item = PinnedFile<'_>> {
        let own = PinnedFile { name: &self.name, file: &self.file, size: self.size, sha256: self.sha256 };
        std::iter::once(own).chain(self.build.iter().map(PinnedFile::from))
    }
}

/// A wheel as a lock pins it. Holds no host name: any index that has the file serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedWheel {
    /// The project.
    pub name: ProjectName,
    /// Its version.
    pub version: String,
    /// The file's name, which says what it runs on.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// What its files come to, in bytes.
    pub installed_size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Whether the recipe itself asks for the project.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// Licences that its metadata names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// What it needs on this Python, `NAME[EXTRAS]SPECIFIERS`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
}

impl LockedWheels {
    /// What the wheels are for.
    pub const fn target(&self, arch: Arch) -> Target {
        Target { python: self.python, glibc: self.glibc, arch }
    }

    /// The projects that are installed.
    pub fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.wheels.iter().map(|row| &row.name).chain(self.sdists.iter().map(|row| &row.name))
    }

    /// Every file that the rows pin.
    pub fn files(&self) -> impl Iterator<Item = PinnedFile<'_>> {
        let sources = self.sdists.iter().flat_map(LockedSdist::files);
        self.wheels.iter().map(PinnedFile::from).chain(sources)
    }

    /// The first thing in the rows that cannot be.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let mut seen: BTreeSet<&ProjectName> = self.wheels.iter().map(|row| &row.name).collect();
        for row in &self.sdists {
            if !seen.insert(&row.name) {
                return Some(format!("the project `{}` is there twice", row.name));
            }
            if SdistName::parse(&row.file).is_none_or(|file| file.project != row.name) {
                return Some(format!("`{}` is no source distribution of `{}`", row.file.escape_debug(), row.name));
            }
        }
        let environments = self.sdists.iter().map(|row| row.build.as_slice());
        std::iter::once(self.wheels.as_slice()).chain(environments).find_map(contradiction)
    }
}

/// The first thing that cannot be in a set of wheels.
fn contradiction(wheels: &[LockedWheel]) -> Option<String> {
    let mut seen = BTreeSet::new();
    for row in wheels {
        if !seen.insert(&row.name) {
            return Some(format!("the project `{}` is there twice", row.name));
        }
        match row.file.parse::<WheelName>() {
            Ok(file) if file.project == row.name => {}
            Ok(_) => return Some(format!("the wheel `{}` is not of `{}`", row.file, row.name)),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}
