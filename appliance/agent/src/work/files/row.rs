//! Files as rows of the database.

use super::FilesError;
use gap_jobs::DatabaseError;
use rusqlite::Row;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Training and measuring on while training.
    FineTune,
    /// Measuring.
    Evals,
    /// Anything else; not checked, not trained on.
    UserData,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::FineTune, Self::Evals, Self::UserData];

    /// OpenAI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FineTune => "fine-tune",
            Self::Evals => "evals",
            Self::UserData => "user_data",
        }
    }

    /// The purpose of this name.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == text)
    }
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is being checked.
    Uploaded,
    /// It was found good.
    Processed,
    /// It was not.
    Error,
}

impl Status {
    const ALL: [Self; 3] = [Self::Uploaded, Self::Processed, Self::Error];

    /// OpenAI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Processed => "processed",
            Self::Error => "error",
        }
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Its place in the order of arrival, from 1.
    pub sequence: i64,
    /// Its name for machines.
    pub id: String,
    /// Its name for people.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// How far it is.
    pub status: Status,
    /// What is wrong with it, or what was found.
    pub details: Option<String>,
    /// When it came, in milliseconds since 1970.
    pub created_at: i64,
}

/// What is read of a file.
pub(super) const COLUMNS: &str = "sequence, id, filename, purpose, bytes, sha256, status, details, created_at";

/// A row as SQLite has it, before its words are understood.
pub(super) type Raw = (i64, String, String, String, i64, String, String, Option<String>, i64);

/// Reads the columns.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
        row.get(8)?,
    ))
}

/// A file of what was read.
///
/// # Errors
/// [`FilesError::Database`] when a word was never written there.
pub(super) fn understood(raw: Raw) -> Result<FileRow, FilesError> {
    let (sequence, id, filename, purpose, bytes, sha256, status, details, created_at) = raw;
    let damaged = || DatabaseError::Damaged(format!("the file {id} has an unknown purpose or status"));
    let purpose = Purpose::named(&purpose).ok_or_else(damaged)?;
    let status = Status::ALL.into_iter().find(|it| it.name() == status).ok_or_else(damaged)?;
    let bytes = u64::try_from(bytes).unwrap_or(0);
    Ok(FileRow { sequence, id, filename, purpose, bytes, sha256, status, details, created_at })
}
