//! Keys: a hash over everything that made something, so that the same inputs are found again.

use gap_format::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Identifies a layer by what it is made of, before it is made.
///
/// It covers the kind and the format version of its builder, the sources by digest, the parameters, and for layers made
/// by running programs the keys of the stack below. Nothing of the machine, the clock or the user goes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(Digest);

impl LayerKey {
    /// The key as a digest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.to_hex()
    }
}

impl From<Digest> for LayerKey {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.to_hex())
    }
}

/// Hashes named fields so that different fields never give the same bytes.
///
/// Every field is its name, the number of its items and the items; names and items are preceded by their length and all
/// numbers are 64-bit little-endian. The order of the fields counts.
#[derive(Debug, Clone)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Starts a key for things of this kind, made by a builder whose output has this format version.
    pub fn new(kind: &str, format: u64) -> Self {
        let mut builder = Self(Sha256::new());
        builder.list("kind", [kind]).number("format", format);
        builder
    }

    /// A field with one text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.list(name, [value])
    }

    /// A field with one number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.list(name, [value.to_le_bytes()])
    }

    /// A field with one truth value.
    pub fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.list(name, [[u8::from(value)]])
    }

    /// A field with one digest.
    pub fn digest(&mut self, name: &str, value: &Digest) -> &mut Self {
        self.list(name, [value.as_bytes()])
    }

    /// A field with any number of items.
    pub fn list<T: AsRef<[u8]>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let items: Vec<T> = items.into_iter().collect();
        self.bytes(name.as_bytes());
        self.0.update((items.len() as u64).to_le_bytes());
        for item in &items {
            self.bytes(item.as_ref());
        }
        self
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The hash over all fields.
    pub fn finish(&self) -> Digest {
        Digest::from(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |fields: &[(&str, &[&str])]| {
            let mut builder = KeyBuilder::new("test", 1);
            for (name, items) in fields {
                builder.list(name, *items);
            }
            builder.finish()
        };
        let different = [
            key(&[]),
            key(&[("a", &[])]),
            key(&[("a", &[""])]),
            key(&[("a", &["bc"])]),
            key(&[("ab", &["c"])]),
            key(&[("a", &["b", "c"])]),
            key(&[("a", &["b"]), ("c", &[])]),
            key(&[("a", &["b"]), ("c", &[""])]),
            key(&[("c", &[""]), ("a", &["b"])]),
        ];
        let distinct: std::collections::BTreeSet<_> = different.iter().collect();
        assert_eq!(distinct.len(), different.len());
        assert_eq!(key(&[("a", &["b"])]), key(&[("a", &["b"])]));
        assert_ne!(KeyBuilder::new("test", 1).finish(), KeyBuilder::new("test", 2).finish());
    }
}
