//! Why a model or an adapter is not loaded.

use std::path::{Path, PathBuf};

/// What was attempted, what was found, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says, or is damaged.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The model is of a kind that is not served.
    #[error("{}: {what} is not supported; {supported}", path.display())]
    Unsupported {
        /// Where it says so.
        path: PathBuf,
        /// What it asks for.
        what: String,
        /// What there is instead.
        supported: &'static str,
    },
    /// The configuration promises a tensor that the weights lack.
    #[error("{}: there is no tensor `{name}`, which the configuration calls for", path.display())]
    NoTensor {
        /// Where it was looked for.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` has shape {found:?}, but the configuration makes it {expected:?}", path.display())]
    Shape {
        /// Where it lies.
        path: PathBuf,
        /// Its name.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// Its shape by the configuration.
        expected: Vec<usize>,
    },
    /// A weight is no number.
    #[error("{}: tensor `{name}` holds NaN or infinity; the file is damaged or its training diverged", path.display())]
    NotFinite {
        /// Where it lies.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// The computing library failed, for instance because a GPU has no room.
    #[error("cannot prepare the weights: {0}")]
    Compute(#[from] candle_core::Error),
}

impl LoadError {
    /// For a file that is not what it should be.
    pub fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), reason: reason.into() }
    }

    /// For what the system said about a file.
    pub fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Read { path: path.to_path_buf(), source }
    }
}
