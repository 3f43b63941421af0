//! Binaries of a Cargo workspace: which sources, crates and toolchain they are made from.
//!
//! Only the packages that the binary needs count: they are *staged*, that is copied out of the workspace with their
//! manifests reduced to what a release build uses. Editing another package, a test or a benchmark changes nothing.

mod checkout;
mod crates;
mod error;
mod manifest;
mod metadata;
mod stage;
#[cfg(test)]
mod tests;
mod toolchain;

pub use checkout::Checkout;
pub(crate) use crates::pins_exactly;
pub use crates::{fetch, unpack_crates};
pub use error::CargoError;
pub use stage::Staged;
pub use toolchain::{Toolchain, sysroot};

use crate::{recipe::CargoLayer, store::Store};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, process::Command};
use tempfile::TempDir;

/// What a lock says of a Cargo layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedCargo {
    /// Version of the binary's package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SPDX expression from its manifest, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Digest over the staged packages of the workspace ([`Staged::digest`]).
    pub sources: Digest,
    /// The compiler.
    pub toolchain: Toolchain,
    /// The crates from the registry that Cargo resolves for them.
    #[serde(default, rename = "crate", skip_serializing_if = "Vec::is_empty")]
    pub crates: Vec<LockedCrate>,
}

/// A crate from the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedCrate {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the `.crate` file.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// SPDX expression from its manifest, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Whether it takes part in the build. The others are there only because Cargo resolves for all platforms.
    pub used: bool,
}

impl LockedCargo {
    /// Whether the workspace and the host's toolchain are still as they were locked.
    ///
    /// # Errors
    /// [`CargoError`] if the workspace cannot be staged or the toolchain not be asked.
    pub fn is_current(&self, layer: &CargoLayer, store: &Store) -> Result<bool, CargoError> {
        let workspace = Checkout::of(&layer.workspace, store.session_dir())?;
        let dir = staging_dir(store)?;
        Ok(*Staged::stage(layer, &workspace, dir.path())?.digest() == self.sources
            && Toolchain::of_host(&workspace)? == self.toolchain)
    }

    /// The first thing in the rows that cannot be.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        for row in &self.crates {
            let shown = row.name.escape_debug();
            if !crates::is_file_name(&row.name) || !crates::is_file_name(&row.version) {
                return Some(format!("the crate `{shown}` has a name or version that no crate can have"));
            }
            if !seen.insert((&row.name, &row.version)) {
                return Some(format!("the crate `{shown}` is there twice in one version"));
            }
        }
        None
    }
}

/// Resolves a Cargo layer for `target`: stages its packages, asks the host's Cargo which crates they need, and puts
/// those into the store. With `offline`, only what Cargo has already is used.
///
/// # Errors
/// [`CargoError`].
pub fn resolve(layer: &CargoLayer, target: &str, store: &Store, offline: bool) -> Result<LockedCargo, CargoError> {
    let workspace = Checkout::of(&layer.workspace, store.session_dir())?;
    let toolchain = Toolchain::of_host(&workspace)?;
    let dir = staging_dir(store)?;
    let staged = Staged::stage(layer, &workspace, dir.path())?;
    let graph = metadata::resolved_graph(layer, &workspace, &staged, target, offline)?;
    let pinned = crates::pinned(&staged.root().join("Cargo.lock"))?;
    crates::all_were_locked(&pinned, &staged)?;
    let found = crates::take_in(&pinned, &workspace, &staged, store, offline)?;
    let mut rows: Vec<LockedCrate> = found
        .into_iter()
        .map(|(krate, size)| {
            let known = graph.packages.get(&(krate.name.clone(), krate.version.clone()));
            LockedCrate {
                size,
                license: known.and_then(|package| package.license.clone()),
                used: known.is_some_and(|package| package.used),
                sha256: krate.checksum,
                name: krate.name,
                version: krate.version,
            }
        })
        .collect();
    rows.sort();
    Ok(LockedCargo {
        version: Some(graph.root.version),
        license: graph.root.license,
        sources: *staged.digest(),
        toolchain,
        crates: rows,
    })
}

/// A directory to stage packages in.
fn staging_dir(store: &Store) -> Result<TempDir, CargoError> {
    let session = store.session_dir();
    TempDir::new_in(session).map_err(CargoError::io("making a directory in", session))
}

/// The host's Cargo, of the toolchain that the workspace asks for and with the user's own configuration.
fn cargo(workspace: &Checkout) -> Result<Command, CargoError> {
    let mut command = toolchain::program("cargo", workspace)?;
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    Ok(command)
}
