//! JSON with exactly one encoding: compact, keys in the order of the specification, no unknown keys.
//!
//! A reader parses and encodes again; anything that does not come out as it went in is refused. So there is no room for
//! bytes that one reader sees and another does not.

use crate::escape::escaped;
use serde::{Serialize, de::DeserializeOwned};

/// Largest integer that every JSON reader keeps exactly (2^53 - 1).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why bytes are not canonical JSON of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The bytes are no JSON, or not of this shape.
    #[error("{0}")]
    Shape(String),
    /// The bytes mean the right thing, but there is one way to write it and this is another.
    #[error("it is not written in its one canonical encoding")]
    Encoding,
}

/// The canonical encoding.
///
/// # Errors
/// [`CanonicalError::Shape`] when the value has no JSON form (no type of this crate is like that).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json::to_vec(value).map_err(|error| CanonicalError::Shape(escaped(&error.to_string())))
}

/// Reads a value and insists that `bytes` is its canonical encoding.
///
/// # Errors
/// See [`CanonicalError`].
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    let value = serde_json::from_slice(bytes).map_err(|error| CanonicalError::Shape(escaped(&error.to_string())))?;
    if encode(&value)? == bytes { Ok(value) } else { Err(CanonicalError::Encoding) }
}
