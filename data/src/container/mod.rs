//! How a file holds its rows: JSON Lines, CSV, Parquet or text; and reading them one after the other in bounded memory.

mod csv;
mod detect;
mod hashed;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod text;

use crate::{
    Error, Input, Json, Limits,
    problem::{At, Fault, Kind},
};
pub use detect::{DetectError, Detected};
use gap_format::Digest;
use hashed::Hashed;
use serde::{Deserialize, Serialize};
use std::{fs::File, io, sync::Arc};

/// How a file holds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// One JSON object a line (<https://jsonlines.org>).
    Jsonl,
    /// Delimited fields under a header (RFC 4180).
    Csv {
        /// `,`, `;` or a tabulator.
        delimiter: Delimiter,
    },
    /// Apache Parquet.
    Parquet,
    /// Plain text in UTF-8.
    Text,
}

impl Container {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "JSON Lines",
            Self::Csv { .. } => "CSV",
            Self::Parquet => "Parquet",
            Self::Text => "text",
        }
    }
}

/// What stands between the fields of a CSV record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// A tabulator.
    Tab,
}

impl Delimiter {
    const ALL: [Self; 3] = [Self::Comma, Self::Semicolon, Self::Tab];

    const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }
}

/// What one example of plain text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextUnit {
    /// A line that is not blank.
    #[default]
    Line,
    /// Lines up to a blank one.
    Paragraph,
    /// The whole file.
    Document,
}

/// A row as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it begins.
    pub at: At,
    /// What it holds.
    pub content: Content,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// JSON, not parsed yet.
    Json(Vec<u8>),
    /// Plain text, perhaps not UTF-8.
    Text(Vec<u8>),
    /// Named fields.
    Fields(Json),
    /// Nothing that could be read.
    Broken(Broken),
}

impl Content {
    /// The bytes that it takes, roughly.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Text(bytes) => bytes.len(),
            Self::Fields(value) => weight(value),
            Self::Broken(_) => 0,
        }
    }
}

fn weight(value: &Json) -> usize {
    match value {
        Json::Text(text) => text.len(),
        Json::List(items) => items.iter().map(weight).sum(),
        Json::Object(entries) => entries.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 8,
    }
}

/// Why a row could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub(crate) Fault);

impl Broken {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Fault::new(kind, message))
    }

    /// What is wrong, without content of the data.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

/// The rows of one file.
pub struct Rows {
    /// How the file holds them, and how that was found out.
    pub detected: Detected,
    name: Arc<str>,
    reader: Reader,
}

enum Reader {
    Jsonl(lines::Jsonl<Hashed>),
    Csv(Box<csv::Records>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::Records>),
    Text(text::Units<Hashed>),
}

/// How rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// The container, if it is not to be detected.
    pub container: Option<Container>,
    /// What one example of plain text is.
    pub text_unit: TextUnit,
}

impl Rows {
    /// Opens a file, and finds out how it is made unless `reading` says so.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Container`].
    pub fn open(input: &Input, reading: &Reading, limits: &Limits) -> Result<Self, Error> {
        let unreadable = || Error::io(format!("read {}", input.path.display()));
        let refused = |source| Error::Container { file: input.name.to_string(), source };
        let file = File::open(&input.path).map_err(unreadable())?;
        let mut hashed = Hashed::new(file.try_clone().map_err(unreadable())?);
        let head = hashed.head().map_err(unreadable())?;
        let detected = detect::detect(&input.name, head, reading.container).map_err(refused)?;
        let limit = limits.row_bytes;
        let reader = match detected.container {
            Container::Jsonl => Reader::Jsonl(lines::Jsonl::new(hashed, limit)),
            Container::Text => Reader::Text(text::Units::new(hashed, reading.text_unit, limit)),
            Container::Csv { delimiter } => Reader::Csv(Box::new(csv::Records::new(hashed, delimiter, limit))),
            #[cfg(feature = "parquet")]
            Container::Parquet => Reader::Parquet(Box::new(parquet::Records::open(file, limit).map_err(refused)?)),
            #[cfg(not(feature = "parquet"))]
            Container::Parquet => return Err(refused(DetectError::NoParquet)),
        };
        Ok(Self { detected, name: input.name.clone(), reader })
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read on.
    pub fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let read: io::Result<Option<Row>> = match &mut self.reader {
            Reader::Jsonl(lines) => lines.next_row(),
            Reader::Text(units) => units.next_row(),
            Reader::Csv(records) => records.next_row(),
            #[cfg(feature = "parquet")]
            Reader::Parquet(records) => Ok(records.next_row()),
        };
        read.map_err(Error::io(format!("read on in {}", self.name)))
    }

    /// Bytes read so far, as far as that is known.
    pub fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Jsonl(lines) => lines.source().bytes_read(),
            Reader::Text(units) => units.source().bytes_read(),
            Reader::Csv(records) => records.bytes_read(),
            #[cfg(feature = "parquet")]
            Reader::Parquet(records) => records.bytes_read(),
        }
    }

    /// Reads what is left without looking at it, and tells the length and the digest of the whole file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Changed`].
    pub fn finish(self) -> Result<(u64, Digest), Error> {
        let unreadable = Error::io(format!("read on in {}", self.name));
        match self.reader {
            Reader::Jsonl(lines) => lines.into_source().finish().map_err(unreadable),
            Reader::Text(units) => units.into_source().finish().map_err(unreadable),
            Reader::Csv(records) => records.into_source().finish().map_err(unreadable),
            #[cfg(feature = "parquet")]
            Reader::Parquet(records) => {
                let (len, before, after) = records.finish().map_err(unreadable)?;
                if before != after {
                    return Err(Error::Changed { file: self.name.to_string(), before, after });
                }
                Ok((len, after))
            }
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("name", &self.name).field("detected", &self.detected).finish_non_exhaustive()
    }
}

/// Reads all rows of a file held in memory: what the fuzz targets and small callers use.
///
/// # Errors
/// [`Error::Container`]; reading from memory does not fail otherwise.
pub fn read_bytes(name: &str, bytes: &[u8], reading: &Reading, limits: &Limits) -> Result<Vec<Row>, Error> {
    use std::io::{Seek, SeekFrom, Write};
    let failed = || Error::io("write a temporary file");
    let mut file = tempfile::NamedTempFile::new().map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    file.seek(SeekFrom::Start(0)).map_err(failed())?;
    let mut rows = Rows::open(&Input::new(name, file.path()), reading, limits)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next_row()? {
        all.push(row);
    }
    Ok(all)
}
