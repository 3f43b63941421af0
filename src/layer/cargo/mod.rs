//! Building binaries of a Cargo workspace, so that their bytes depend on nothing but the lock.
//!
//! The build runs in the sandbox: compiler, linker and C library come from the tree of a build root layer, the Rust
//! toolchain from the host but by version and commit, the crates from the store. Every path it sees is fixed:
//!
//! ```text
//! /src     the staged packages      /vendor  the crates, as a directory source
//! /rust    the toolchain            /cargo   Cargo's home: nothing but its configuration
//! /build   what is compiled         /out     the binary
//! ```

mod build;
mod root;
#[cfg(test)]
mod tests;

pub use build::build;
pub use root::{Missing, missing};

use super::{sandbox::SandboxError, tree::PathError};
use crate::{
    recipe::{Arch, CargoLayer},
    source::cargo::{CargoError, LockedCargo, Toolchain},
    store::StoreError,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Everything that a Cargo layer is built from.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What the recipe asks for.
    pub layer: &'a CargoLayer,
    /// What the lock says.
    pub locked: &'a LockedCargo,
    /// For which processors.
    pub arch: Arch,
}

/// Why a binary could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Staging, toolchain or crates.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The workspace was edited.
    #[error("the sources of the package `{package}` changed since they were locked; run `gapimage lock`")]
    Changed {
        /// The package.
        package: String,
    },
    /// The host has another toolchain.
    #[error(
        "the lock wants rustc {} ({}) for {}, and the workspace uses {} ({}) for {}; install the locked one, or run \
         `gapimage lock`", locked.rustc, locked.commit, locked.host, found.rustc, found.commit, found.host
    )]
    Toolchain {
        /// What the lock says.
        locked: Box<Toolchain>,
        /// What is there.
        found: Box<Toolchain>,
    },
    /// The build root lacks something.
    #[error("the build root `{layer}` has no {}; add {} to its `packages`", list(missing, |m| m.path), list(missing, |m| m.package))]
    Root {
        /// The build root layer.
        layer: String,
        /// What is missing.
        missing: Vec<Missing>,
    },
    /// The compiler or Cargo failed, or the sandbox.
    #[error("building `{bin}` of the package `{package}`: {source}")]
    Failed {
        /// The package.
        package: String,
        /// The binary.
        bin: String,
        /// What was said.
        source: SandboxError,
    },
    /// Cargo ended well and left no binary.
    #[error("cargo left no binary `{0}`; the toolchain is older than 1.91, or the package changes Cargo's settings")]
    NoBinary(String),
    /// A name in the sources cannot be a path in the sandbox.
    #[error("the source `{path}`: {source}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// The system refused something.
    #[error("{doing} `{}`: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BuildError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

fn list(missing: &[Missing], what: fn(&Missing) -> &'static str) -> String {
    let mut names: Vec<String> = missing.iter().map(|missing| format!("`{}`", what(missing))).collect();
    names.dedup();
    names.join(", ")
}
