//! What an upload is, how far it is, and why one does not go on.

use super::{MAX_PART, MAX_PARTS, MAX_PENDING};
use crate::work::files::{FilesError, Purpose};
use gap_jobs::DatabaseError;
use std::io;

/// How far an upload is, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStatus {
    /// Parts may come.
    Pending,
    /// It became a file.
    Completed,
    /// It is not wanted any more.
    Cancelled,
    /// It waited too long.
    Expired,
}

impl UploadStatus {
    pub(super) const ALL: [Self; 4] = [Self::Pending, Self::Completed, Self::Cancelled, Self::Expired];

    /// OpenAI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub(super) sequence: i64,
    /// Its name for machines.
    pub id: String,
    /// Name of the file for people.
    pub filename: String,
    /// What the file is for.
    pub purpose: Purpose,
    /// Length of the whole file, as announced.
    pub bytes: u64,
    /// How far it is.
    pub status: UploadStatus,
    /// The file that it became.
    pub file: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub created_at: i64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: i64,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name for machines.
    pub id: String,
    /// The upload that it belongs to.
    pub upload: String,
    /// When it came, in milliseconds since 1970.
    pub created_at: i64,
}

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file that it is to become.
    #[error(transparent)]
    File(#[from] FilesError),
    /// There is none of this name.
    #[error("there is no upload `{0}`")]
    None(String),
    /// It is over.
    #[error("the upload is {}, so nothing can be done to it", .0.name())]
    Over(UploadStatus),
    /// There are too many.
    #[error("{MAX_PENDING} uploads wait for their parts already: complete or cancel some")]
    TooMany,
    /// A part is too long, or there are too many.
    #[error("a part has at most {MAX_PART} bytes, and an upload at most {MAX_PARTS} parts")]
    Part,
    /// A part is not this upload's.
    #[error("the upload has no part `{0}`")]
    NoPart(String),
    /// The parts are not what was announced.
    #[error("the parts have {found} bytes together, and {announced} were announced")]
    Length {
        /// Bytes of the parts.
        found: u64,
        /// Bytes that were announced.
        announced: u64,
    },
}

impl From<DatabaseError> for UploadError {
    fn from(error: DatabaseError) -> Self {
        Self::File(error.into())
    }
}

impl From<rusqlite::Error> for UploadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error.into())
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::File(error.into())
    }
}
