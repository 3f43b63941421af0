//! SHA-256 digests as OCI writes them: `sha256:` and 64 lower-case hexadecimal digits.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// The SHA-256 of some bytes.
///
/// Written `sha256:<hex>` (OCI image-spec, "Digests"). Parsing accepts exactly that form and no
/// upper-case digits, so that one digest has one spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError;

impl Digest {
    /// Length of the hexadecimal form, without the `sha256:` prefix.
    pub const HEX_LEN: usize = 64;

    /// Wraps 32 bytes that are already a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes a byte string held in memory.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits, as used in `blobs/sha256/<hex>`.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses the 64 hexadecimal digits without prefix.
    ///
    /// # Errors
    /// [`ParseDigestError`] unless the text is exactly 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        if text.len() != Self::HEX_LEN || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseDigestError)?;
        Ok(Self(bytes))
    }
}

impl From<Sha256> for Digest {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(ParseDigestError)?)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(digest));
        assert_eq!(text.to_uppercase().parse::<Digest>(), Err(ParseDigestError));
        assert_eq!(text.replace("sha256:e3", "sha256:E3").parse::<Digest>(), Err(ParseDigestError));
        assert_eq!(Digest::from_hex(&text[7..70]), Err(ParseDigestError));
    }
}
