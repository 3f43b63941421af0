//! Records: what a layer's key turned out to be.

use super::{LayerKey, Store, error::StoreError, notes::write_small, temp::touch};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Longest record accepted, in bytes.
const MAX_LEN: u64 = 64 * 1024;
/// Bytes read at once when a blob is hashed again.
const CHUNK: usize = 1024 * 1024;

/// A built layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// SHA-256 of the layer's tar.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Root hash of its verity tree.
    pub verity_root: Digest,
    /// An artifact that holds it, when the store has no copy of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// A range of an existing file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The file, absolute.
    pub path: String,
    /// First byte.
    pub offset: u64,
    /// The file as it was when the layer was written into it.
    pub identity: Identity,
}

/// What tells a file from its successor under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of last modification, seconds since 1970.
    pub mtime: i64,
    /// Its nanoseconds.
    pub mtime_nsec: i64,
}

impl Identity {
    /// The identity of an open file.
    ///
    /// # Errors
    /// What the system said.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: meta.mtime(),
            mtime_nsec: meta.mtime_nsec(),
        })
    }
}

impl Location {
    /// The place `offset` in the file at `path`, as it is now; `None` if the path is not UTF-8 and cannot be recorded.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(path: &Path, offset: u64) -> io::Result<Option<Self>> {
        let path = path.canonicalize()?;
        let identity = Identity::of(&File::open(&path)?)?;
        Ok(path.into_os_string().into_string().ok().map(|path| Self { path, offset, identity }))
    }
}

/// A layer that is there to be read.
#[derive(Debug)]
pub struct FoundLayer {
    /// What is known of it.
    pub record: Record,
    /// The file that holds it.
    pub file: File,
    /// Where that file is.
    pub path: PathBuf,
    /// First byte of the layer in the file.
    pub offset: u64,
}

impl Store {
    /// The layer of this key, if it was built before and its bytes are still there: in the store, or in an artifact
    /// that has not changed. Where the artifact did change (it was signed, say), the layer's bytes are hashed again.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read; a damaged record counts as none.
    pub fn layer(&self, key: &LayerKey) -> Result<Option<FoundLayer>, StoreError> {
        let Some(record) = self.record(key)? else { return Ok(None) };
        if let Some(file) = self.open_blob(&record.digest, Some(record.size))? {
            let path = self.blob_path(&record.digest);
            return Ok(Some(FoundLayer { record, file, path, offset: 0 }));
        }
        let Some(location) = record.location.clone() else { return Ok(None) };
        let Ok(file) = File::open(&location.path) else { return Ok(None) };
        let Ok(identity) = Identity::of(&file) else { return Ok(None) };
        let mut record = record;
        if identity != location.identity {
            if !holds(&file, &identity, location.offset, &record) {
                return Ok(None);
            }
            record.location = Some(Location { identity, ..location.clone() });
            self.put_record(key, &record)?;
        }
        Ok(Some(FoundLayer { record, file, path: location.path.into(), offset: location.offset }))
    }

    /// The record of this key, whether or not the bytes are still there.
    ///
    /// # Errors
    /// [`StoreError`] if it is there and cannot be read; a damaged one counts as none.
    pub fn record(&self, key: &LayerKey) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("opening", &path)(error)),
        };
        let record = read_record(&file).map_err(StoreError::io("reading", &path))?;
        if record.is_some() {
            touch(&file);
        }
        Ok(record)
    }

    /// Notes what the layer of this key turned out to be. The layer itself is on the disk by then; a record that a crash of
    /// the machine damages counts as none, so it need not be waited for.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; the record before is untouched then.
    pub fn put_record(&self, key: &LayerKey, record: &Record) -> Result<(), StoreError> {
        let path = self.record_path(key);
        let failed = || StoreError::io("writing", &path);
        let mut text = serde_json::to_vec_pretty(record).map_err(|error| failed()(error.into()))?;
        text.push(b'\n');
        write_small(self, &path, &text)
    }
}

/// Decodes a record; `None` if it is damaged.
pub(super) fn read_record(file: &File) -> io::Result<Option<Record>> {
    let mut text = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// Whether `file` holds the layer at `offset`, by its digest.
fn holds(file: &File, identity: &Identity, offset: u64, record: &Record) -> bool {
    let Some(end) = offset.checked_add(record.size).filter(|&end| end <= identity.size) else { return false };
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = offset;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let Some(part) = chunk.get_mut(..len) else { return false };
        if file.read_exact_at(part, at).is_err() {
            return false;
        }
        hasher.update(part);
        at += len as u64;
    }
    Digest::from(hasher) == record.digest
}
