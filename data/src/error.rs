//! Why a data set could not be read or prepared.

use crate::{InputError, Problems, TokenizerError, container::DetectError, format::FormatError, pii::PatternError};
use gap_format::Digest;
use std::io;

/// Why a data set could not be read or prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// See [`InputError`].
    #[error(transparent)]
    Input(#[from] InputError),
    /// It cannot be told how a file is made.
    #[error("`{file}` cannot be read as a data set: {source}")]
    Container {
        /// The input.
        file: String,
        /// Why.
        source: DetectError,
    },
    /// It cannot be told what the rows are.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// Rows are broken, and they were not to be left out.
    #[error("the data set has {} broken rows or fields:\n{problems}", problems.count(crate::Severity::Error))]
    Problems {
        /// What is wrong with them.
        problems: Box<Problems>,
    },
    /// No usable row.
    #[error("the data set has no usable example")]
    Empty,
    /// More rows than allowed.
    #[error("the data set has more than {limit} rows; raise the limit or take fewer")]
    TooManyRows {
        /// The limit.
        limit: u32,
    },
    /// A file changed while it was read.
    #[error("`{file}` changed while it was read: it was {before} and is {after}; leave it alone and try again")]
    Changed {
        /// The input.
        file: String,
        /// Its digest before.
        before: Digest,
        /// Its digest after.
        after: Digest,
    },
    /// See [`PatternError`].
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// See [`TokenizerError`].
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Personal data was found where none may be.
    #[error(
        "the data set holds personal data or secrets: {found}; redact them (`pii = \"redact\"`) or remove the rows"
    )]
    Pii {
        /// What was found, by kind.
        found: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// No threads could be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// The watcher said to stop.
    #[error("stopped before the end; nothing was written under its final name")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
