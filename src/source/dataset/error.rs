//! Why the files of a data set cannot be pinned or fetched.

use crate::{
    source::{http::HttpError, model::ModelError},
    store::StoreError,
};
use std::{io, path::PathBuf};

/// Why the files of a data set cannot be pinned or fetched.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// There are none, or they cannot be listed.
    #[error(transparent)]
    Input(#[from] gap_data::InputError),
    /// One cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// See [`HttpError`].
    #[error(transparent)]
    Http(#[from] HttpError),
    /// See [`ModelError`]: data sets come from a hub as models do.
    #[error(transparent)]
    Hub(#[from] ModelError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It must be fetched, and no connection may be opened.
    #[error(
        "its files are not in the store, and --offline forbids fetching them; run `gapimage lock` on the connected side"
    )]
    Offline,
}

impl DatasetError {
    /// Whether it is somebody else's server that stands in the way.
    pub const fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Hub(_))
    }
}
