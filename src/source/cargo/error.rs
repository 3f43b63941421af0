//! What can go wrong with a Cargo layer before it is built.

use crate::{recipe::Workspace, store::StoreError};
use gap_format::Digest;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a Cargo layer cannot be resolved, fetched or staged.
#[derive(Debug, thiserror::Error)]
pub enum CargoError {
    /// The host has no such program.
    #[error("`{program}` cannot be started: {source}; install Rust with rustup")]
    NotInstalled {
        /// `cargo` or `rustc`.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program of the host failed.
    #[error("`{command}` failed in `{}`: {stderr}", workspace.display())]
    Failed {
        /// What was run.
        command: String,
        /// Where.
        workspace: PathBuf,
        /// The last lines that it said.
        stderr: String,
    },
    /// A program of the host said something that is not understood.
    #[error("the answer of `{command}` is not understood: {what}")]
    Answer {
        /// What was run.
        command: &'static str,
        /// What is odd.
        what: String,
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
    /// The workspace has no such package.
    #[error("the workspace `{workspace}` has no package `{package}`; it has {known}")]
    NoPackage {
        /// The workspace.
        workspace: Workspace,
        /// The package asked for.
        package: String,
        /// Those that there are.
        known: String,
    },
    /// The package has no such binary.
    #[error("the package `{package}` has no binary `{bin}`; it has {known}")]
    NoBinary {
        /// The package.
        package: String,
        /// The binary asked for.
        bin: String,
        /// Those that there are.
        known: String,
    },
    /// A package lies outside of the workspace.
    #[error("`{package}` depends on `{}`, which is no package of the workspace; add it to the members", path.display())]
    Outside {
        /// The package that depends.
        package: String,
        /// What it depends on.
        path: PathBuf,
    },
    /// A manifest cannot be read as TOML.
    #[error("the manifest `{}` is not understood: {what}", path.display())]
    Manifest {
        /// The manifest or lock file.
        path: PathBuf,
        /// What is odd.
        what: String,
    },
    /// The sources hold something that cannot be staged.
    #[error("the source `{}` {what}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What is odd about it.
        what: &'static str,
    },
    /// The workspace's `Cargo.lock` does not hold all that is needed.
    #[error("the `Cargo.lock` of the workspace does not pin {0}; run `cargo update --workspace` there")]
    NotPinned(String),
    /// A crate comes from elsewhere than a registry.
    #[error("the crate `{name}` {version} comes from {from}; only crates from a registry can be locked")]
    Unlockable {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// Where it comes from.
        from: String,
    },
    /// Cargo has no file for a crate, or one with another digest.
    #[error(
        "Cargo's cache has no file of the crate `{name}` {version} with the digest {sha256}; run `cargo fetch` in the \
         workspace (a vendored source keeps no such files)"
    )]
    NoCrateFile {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// The digest that it must have.
        sha256: Digest,
    },
    /// A crate file holds something that cannot be unpacked.
    #[error("the crate `{name}` {version} cannot be unpacked: {what}")]
    BadCrate {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// What is odd.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CargoError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
