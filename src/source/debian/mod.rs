//! Debian archives: mirrors, signed releases, package indexes, dependency resolution and `.deb`
//! files, all in-process.

pub mod archive;
pub mod compression;
pub mod copyright;
pub mod data_tar;
pub mod deb;
pub mod deb822;
#[cfg(test)]
mod deb_tests;
mod explain;
pub mod index;
pub mod mirror;
pub mod openpgp;
mod order;
pub mod packages;
pub mod relation;
pub mod release;
pub mod request;
pub mod resolve;
#[cfg(test)]
mod resolve_tests;
mod solver;
pub mod spool;
pub mod version;

use gap_format::Digest;
use serde::{Deserialize, Serialize};

/// One package as a lock pins it. Holds no host name: `path` is below the root of the archive,
/// which any mirror serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture: Debian's name of it, or `all`.
    pub arch: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Path of the `.deb` below the archive's root.
    pub path: String,
    /// Which archive serves the path, such as `debian` or `debian-security`.
    #[serde(default = "default_archive", skip_serializing_if = "is_default_archive")]
    pub archive: String,
    /// Estimated size when installed, in KiB.
    pub installed_size: u64,
    /// Place in an order in which dependencies come before what needs them (cycles broken at a fixed
    /// place), from 0.
    pub order: u32,
    /// Virtual packages it provides, as its control file says; what higher layers may rely on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provides: String,
    /// What it conflicts with or breaks, as its control file says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub conflicts: String,
}

/// The archive that is meant where none is named.
pub const DEFAULT_ARCHIVE: &str = "debian";

fn default_archive() -> String {
    DEFAULT_ARCHIVE.to_owned()
}

fn is_default_archive(archive: &str) -> bool {
    archive == DEFAULT_ARCHIVE
}
