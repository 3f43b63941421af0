//! What can be wrong with a lock.

use std::{fmt, io, path::PathBuf};

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read.
    #[error("the lock `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("the lock `{}` cannot be written: {source}", path.display())]
    NotSaved {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in the lock has no form in TOML.
    #[error("the lock cannot be written as TOML: {0}")]
    Unwritable(Box<toml::ser::Error>),
    /// The file is no lock: not TOML, unknown keys, wrong types.
    #[error("the lock `{}` is damaged; restore it, or remove it and run `gapimage lock`: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file was written by another version of gapimage.
    #[error(
        "the lock `{}` has format version {found}, and this gapimage knows {known}; use the gapimage that wrote it, or \
         run `gapimage lock --update`", path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u64,
        /// The version that is known.
        known: u64,
    },
    /// The rows contradict each other.
    #[error("the lock `{}` is damaged: {what}; restore it, or remove it and run `gapimage lock`", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What cannot be.
        what: String,
    },
    /// The recipe asks for something else by now.
    #[error(
        "the recipe changed since it was locked: {}; run `gapimage lock {}`", Change::list(changes), recipe.display()
    )]
    Stale {
        /// The recipe.
        recipe: PathBuf,
        /// What differs, sorted; at least one.
        changes: Vec<Change>,
    },
}

/// A difference between recipe and lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A layer is new.
    Added(String),
    /// A layer asks for something else.
    Asked(String),
    /// A layer stands on other layers.
    Moved(String),
    /// A layer is gone.
    Gone(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(layer) => write!(f, "layer `{layer}` is new"),
            Self::Asked(layer) => write!(f, "layer `{layer}` asks for something else"),
            Self::Moved(layer) => write!(f, "layer `{layer}` stands on other layers"),
            Self::Gone(layer) => write!(f, "layer `{layer}` is gone"),
        }
    }
}

impl Change {
    /// The differences in one line.
    pub fn list(changes: &[Self]) -> String {
        changes.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }
}
