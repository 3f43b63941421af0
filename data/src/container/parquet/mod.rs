//! Rows of Parquet files.
//!
//! The `parquet` crate decodes; what it would believe without looking (how deep a schema is, how large pages become,
//! how many values a list has) is looked at first ([`guard`]). A panic in it ends the file, not the program.

mod convert;
mod guard;
mod thrift;

use super::{Broken, Content, DetectError, Row};
use crate::problem::{At, Kind};
use gap_format::Digest;
use parquet::{
    file::{
        reader::{FileReader, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
    },
    record::reader::{ReaderIter, TreeBuilder},
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Rows that the decoder works on at once.
const BATCH: usize = 256;

/// The rows of one file.
pub(crate) struct Records {
    file: File,
    len: u64,
    before: Digest,
    reader: SerializedFileReader<File>,
    group: usize,
    rows: Option<ReaderIter>,
    row: u64,
    limit: usize,
    ended: bool,
}

impl Records {
    /// Rows longer than `limit` are refused.
    pub fn open(file: File, limit: usize) -> Result<Self, DetectError> {
        let refused = |reason: String| DetectError::Parquet(reason);
        let len = file.metadata().map_err(|error| refused(error.to_string()))?.len();
        let (_, before) = digest(&file).map_err(|error| refused(error.to_string()))?;
        guard::footer(&file, len).map_err(|error| refused(error.to_string()))?;
        let own = file.try_clone().map_err(|error| refused(error.to_string()))?;
        let options = ReadOptionsBuilder::new().build();
        let reader = catch_unwind(AssertUnwindSafe(|| SerializedFileReader::new_with_options(own, options)))
            .map_err(|_| refused("they make no sense".to_owned()))?
            .map_err(|_| refused("they cannot be decoded".to_owned()))?;
        guard::schema(reader.metadata()).map_err(|error| refused(error.to_string()))?;
        Ok(Self { file, len, before, reader, group: 0, rows: None, row: 0, limit, ended: false })
    }

    /// Row groups are not weighed: it is as if all were of one size.
    pub fn bytes_read(&self) -> u64 {
        let groups = self.reader.num_row_groups().max(1) as u64;
        self.len / groups * (self.group as u64).min(groups)
    }

    /// The length of the file, and its digests before and after reading.
    pub fn finish(self) -> io::Result<(u64, Digest, Digest)> {
        let (len, after) = digest(&self.file)?;
        Ok((len, self.before, after))
    }

    pub fn next_row(&mut self) -> Option<Row> {
        if self.ended {
            return None;
        }
        let content = match self.next_content() {
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Ok(Some(content)) => content,
            Err(reason) => {
                self.ended = true;
                Content::Broken(Broken::new(Kind::Container, reason))
            }
        };
        self.row += 1;
        Some(Row { at: At::Row(self.row), content })
    }

    fn next_content(&mut self) -> Result<Option<Content>, String> {
        loop {
            if let Some(rows) = &mut self.rows {
                match catch_unwind(AssertUnwindSafe(|| rows.next())) {
                    Err(_) => return Err("the rows from here on cannot be decoded".to_owned()),
                    Ok(Some(Err(_))) => return Err("the rows from here on are damaged".to_owned()),
                    Ok(Some(Ok(row))) => return Ok(Some(convert::row(&row, self.limit))),
                    Ok(None) => self.rows = None,
                }
            }
            if self.group >= self.reader.num_row_groups() {
                return Ok(None);
            }
            guard::pages(&self.file, self.len, self.reader.metadata(), self.group)
                .map_err(|error| format!("row group {}: {error}", self.group + 1))?;
            self.rows = Some(self.open_group()?);
            self.group += 1;
        }
    }

    fn open_group(&self) -> Result<ReaderIter, String> {
        let broken = || format!("row group {} cannot be opened", self.group + 1);
        catch_unwind(AssertUnwindSafe(|| {
            let group = self.reader.get_row_group(self.group)?;
            let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
            TreeBuilder::new().with_batch_size(BATCH).as_iter(schema, &*group)
        }))
        .map_err(|_| broken())?
        .map_err(|_| broken())
    }
}

/// Length and digest of a file, without moving its cursor.
fn digest(file: &File) -> io::Result<(u64, Digest)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok((at, Digest::from(hasher))),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
