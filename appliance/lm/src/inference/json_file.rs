//! Files of bounded length, and JSON in them.

use super::error::LoadError;
use serde::de::DeserializeOwned;
use std::{fs::File, io::Read, path::Path};

/// Longest configuration file, in bytes.
pub const MAX_CONFIG: u64 = 16 << 20;

/// Reads a file that is no longer than `most` bytes.
///
/// # Errors
/// Where it cannot be read, or is longer.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(LoadError::reading(path))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(LoadError::reading(path))?;
    if bytes.len() as u64 > most {
        return Err(LoadError::damaged(path, format!("it is longer than {most} bytes, the most that is read")));
    }
    Ok(bytes)
}

/// Reads JSON from a file that is no longer than `most` bytes.
///
/// # Errors
/// Where it cannot be read, or is something else.
pub fn read_json<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T, LoadError> {
    serde_json::from_slice(&read_bounded(path, most)?).map_err(|error| LoadError::damaged(path, error.to_string()))
}
