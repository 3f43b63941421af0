//! Why wheels cannot be installed.

use super::{entry_points::EntryPointError, record::RecordError};
use crate::{
    layer::{
        sandbox::SandboxError,
        tree::{PathError, TreePath},
    },
    source::wheels::{archive::ArchiveError, metadata::MetadataError, target::Target},
    store::StoreError,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a layer of wheels cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// One wheel is not what it should be.
    #[error("the wheel `{file}`: {source}")]
    Wheel {
        /// Its file name.
        file: String,
        /// What is wrong with it.
        source: WheelError,
    },
    /// A wheel is not in the store.
    #[error("the wheel `{0}` is not in the store; build without --offline")]
    Missing(String),
    /// A directory that cannot be a virtual environment.
    #[error("{path} cannot be a virtual environment: {reason}")]
    Environment {
        /// The directory.
        path: TreePath,
        /// Why not.
        reason: String,
    },
    /// Two wheels put a file and a directory in one place.
    #[error("{path} is a file in one wheel and a directory in another; leave out one of them")]
    Clash {
        /// The place.
        path: TreePath,
    },
    /// The layers below lack the interpreter.
    #[error(
        "the layers below have no {path}, which bytecode is compiled with; add the Debian package, or say `bytecode = \
         false`"
    )]
    NoInterpreter {
        /// What is missing.
        path: TreePath,
    },
    /// The interpreter is no program that can be read.
    #[error("{path} cannot be looked into: {reason}")]
    Interpreter {
        /// The file.
        path: TreePath,
        /// Why not.
        reason: String,
    },
    /// Compiling failed.
    #[error("compiling bytecode: {0}")]
    Compile(#[from] SandboxError),
    /// A name that cannot be a path.
    #[error("`{name}`: {reason}")]
    Path {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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

/// What is wrong with one wheel.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// Its archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its `RECORD`.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its `METADATA`.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Its programs.
    #[error(transparent)]
    EntryPoint(#[from] EntryPointError),
    /// A file that `RECORD` does not name, or one that it names and that is not there.
    #[error("`{path}` {what}; the wheel was changed after it was made")]
    Unrecorded {
        /// The file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A file with other bytes than `RECORD` says.
    #[error("`{0}` has another digest or length than RECORD says; the wheel was changed after it was made")]
    Changed(String),
    /// A file that was unpacked before and is no longer what it was.
    #[error(
        "`{0}`, which was unpacked before, was damaged in the store and is no longer used; run the same command again"
    )]
    Damaged(String),
    /// A format that is not known.
    #[error("its format is {0}; 1.x is known")]
    Format(String),
    /// Its own tags are for something else.
    #[error("it says that it is for {found}, and the image is {target}")]
    OtherPlatform {
        /// Its tags.
        found: String,
        /// The image.
        target: Target,
    },
    /// It is another project or version, or has other licences or needs than the lock says.
    #[error("{what} {found}, and the lock says {locked}; lock again")]
    NotAsLocked {
        /// What differs.
        what: &'static str,
        /// What the wheel says.
        found: String,
        /// What the lock says.
        locked: String,
    },
    /// A `.data` directory with parts that are not known.
    #[error("`{0}` is in no part of a wheel that is known")]
    Part(String),
    /// A path that cannot be.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Reading or writing failed.
    #[error("`{path}`: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl InstallError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn path(name: &str, reason: PathError) -> Self {
        Self::Path { name: name.escape_debug().to_string(), reason }
    }
}
