//! Building binaries of a Cargo workspace, so that their bytes depend on nothing but the lock.
//!
//! The build runs apart from the host: compiler, linker and C library come from the tree of a build root layer, the Rust
//! toolchain from the host but by version and commit, the crates from the store. Every path it sees is fixed:
//!
//! ```text
//! /src      the staged packages        /vendor   the crates, as a directory source
//! /rust     the toolchain              /cargo    Cargo's home: nothing but its configuration
//! /target   compiled crates, kept between builds; makes them faster and nothing else
//! ```

mod build;
mod root;
#[cfg(test)]
mod tests;

pub use build::build;
pub use root::{Missing, missing};

use crate::{
    recipe::{Arch, CargoLayer},
    source::cargo::{CargoError, LockedCargo, Toolchain},
    store::{KeyBuilder, LayerKey, StoreError},
};
use gap_format::Digest;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Raised when the same inputs give other bytes.
const FORMAT: u64 = 1;

/// A program to run apart from the host.
#[derive(Debug)]
pub struct Step<'a> {
    /// What else it sees. Mount points need not exist in the root.
    pub binds: &'a [Bind],
    /// Program and arguments, found by the `PATH` of `env`.
    pub command: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<&'static str, String>,
    /// Its working directory.
    pub dir: &'static str,
    /// When it is stopped.
    pub time_limit: Duration,
}

/// A directory of the host that a [`Step`] sees.
#[derive(Debug, Clone)]
pub struct Bind {
    /// The directory on the host.
    pub source: PathBuf,
    /// Where it is seen.
    pub target: &'static str,
    /// Whether it may be written.
    pub writable: bool,
}

/// How a [`Step`] ended.
#[derive(Debug)]
pub struct Finished {
    /// Whether the program ended with exit status 0.
    pub success: bool,
    /// The end of what it wrote to standard output and error.
    pub output: String,
}

/// Runs programs apart from the host, in a build root: namespaces of their own, no network, no paths but the given
/// ones. What is written elsewhere than in writable binds is lost.
pub trait Runner {
    /// Runs one program to its end.
    ///
    /// # Errors
    /// What kept it from being started or watched.
    fn run(&self, step: &Step<'_>) -> io::Result<Finished>;
}

/// Everything that a Cargo layer is built from.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What the recipe asks for.
    pub layer: &'a CargoLayer,
    /// What the lock says.
    pub locked: &'a LockedCargo,
    /// For which processors.
    pub arch: Arch,
    /// Key of the build root layer.
    pub root_key: &'a LayerKey,
}

impl Order<'_> {
    /// The key of the layer that comes of it.
    pub fn key(&self) -> LayerKey {
        let mut key = KeyBuilder::new("cargo", FORMAT);
        self.add_environment(&mut key);
        key.digest("sources", &self.locked.sources)
            .text("package", &self.layer.package)
            .text("bin", &self.layer.bin)
            .list("features", &self.layer.features)
            .list("to", [self.layer.to.as_bytes()]);
        key.finish().into()
    }

    /// The key under which compiled crates are kept.
    fn cache_key(&self) -> Digest {
        let mut key = KeyBuilder::new("cargo-cache", FORMAT);
        self.add_environment(&mut key);
        key.finish()
    }

    fn add_environment(&self, key: &mut KeyBuilder) {
        let Toolchain { rustc, commit, host } = &self.locked.toolchain;
        let crates = self.locked.crates.iter();
        let crates = crates.map(|row| format!("{} {} {}", row.name, row.version, row.sha256));
        key.list("toolchain", [rustc, commit, host])
            .list("crates", crates)
            .digest("root", self.root_key.digest())
            .text("target", self.arch.rust_target())
            .flag("static", self.layer.static_link);
    }
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
    /// The compiler or Cargo failed.
    #[error("`{command}` failed while building `{package}`:\n{output}")]
    Failed {
        /// What was run.
        command: String,
        /// The package.
        package: String,
        /// The end of what it said.
        output: String,
    },
    /// The sandbox failed.
    #[error("`{command}` could not be run apart from the host: {source}")]
    Sandbox {
        /// What was to be run.
        command: String,
        /// What the system said.
        source: io::Error,
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
