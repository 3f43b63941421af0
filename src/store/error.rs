//! What can go wrong with the store.

use gap_format::Digest;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where the store is.
    #[error("no place for the store: set HOME or XDG_CACHE_HOME, or name a directory with --store")]
    NoHome,
    /// The file system is full, or a quota is reached.
    #[error(
        "no space left while writing to the store at `{}`: {source}; free some, run `gapimage store gc`, or name another \
         directory with --store", path.display()
    )]
    Full {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No file of that length is allowed there.
    #[error(
        "a file for the store at `{}` became longer than its file system (FAT32 ends at 4 GiB) or a limit of this process \
         allows: {source}; name another directory with --store", path.display()
    )]
    FileTooLarge {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something.
    #[error("{doing} `{}`: {source}", path.display())]
    Io {
        /// What was attempted, with a preposition (`writing to`).
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source of the bytes failed.
    #[error("reading what should go into the store: {0}")]
    Input(io::Error),
    /// The bytes are not those that were promised.
    #[error("the content has the digest {found}, but {expected} was promised; it was not taken into the store")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than allowed.
    #[error("the content is longer than the {limit} bytes that it may have; it was not taken into the store")]
    TooLong {
        /// Most bytes allowed.
        limit: u64,
    },
    /// Collecting garbage needs the store for itself.
    #[error("the store at `{}` is in use by another gapimage; run this again when that has ended", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    /// Wraps what the system said about `path`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            io::ErrorKind::FileTooLarge => Self::FileTooLarge { path, source },
            _ => Self::Io { doing, path, source },
        }
    }
}
