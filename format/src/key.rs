//! Ed25519 public keys and the identifiers that derive from them.

use crate::Digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// DER of an Ed25519 SubjectPublicKeyInfo before its 32 key bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Which key: the SHA-256 of its SubjectPublicKeyInfo in DER, written as 64 hexadecimal digits.
///
/// `openssl pkey -pubin -in KEY.pem -outform DER | sha256sum` prints the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(Digest);

impl KeyId {
    /// The identifier of a key.
    pub fn of(key: &VerifyingKey) -> Self {
        Self(Digest::of(&spki(key)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl FromStr for KeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Digest::from_hex(text).map(Self).map_err(|_| "a key identifier is 64 lower-case hexadecimal digits")
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Why a text is no usable public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not the expected text.
    #[error(
        "a public key is the one line of base64 inside an Ed25519 PEM file, 60 characters beginning with MCowBQYDK2VwAyEA"
    )]
    Form,
    /// A point of small order, for which anybody can make signatures.
    #[error("the public key is weak: anybody could sign for it")]
    Weak,
}

/// The SubjectPublicKeyInfo of a key in DER, 44 bytes.
pub fn spki(key: &VerifyingKey) -> Vec<u8> {
    SPKI_PREFIX.iter().chain(key.as_bytes()).copied().collect()
}

/// The one line of base64 that stands in the PEM file of a public key.
pub fn encode_public(key: &VerifyingKey) -> String {
    STANDARD.encode(spki(key))
}

/// Reads what [`encode_public`] writes.
///
/// # Errors
/// See [`PublicKeyError`].
pub fn decode_public(text: &str) -> Result<VerifyingKey, PublicKeyError> {
    let der = STANDARD.decode(text).map_err(|_| PublicKeyError::Form)?;
    let bytes = der.strip_prefix(&SPKI_PREFIX).ok_or(PublicKeyError::Form)?;
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| PublicKeyError::Form)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| PublicKeyError::Form)?;
    if key.is_weak() { Err(PublicKeyError::Weak) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_openssl_writes_it() {
        // RFC 8410, section 10.1
        let text = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let key = decode_public(text).unwrap();
        assert_eq!(encode_public(&key), text);
        assert_eq!(KeyId::of(&key).to_string().parse(), Ok(KeyId::of(&key)));
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        let mut weak = SPKI_PREFIX.to_vec();
        weak.push(1);
        weak.resize(44, 0);
        assert_eq!(decode_public(&STANDARD.encode(&weak)), Err(PublicKeyError::Weak));
        for text in
            ["", "MCowBQYDK2VwAyEA", "ssh-ed25519 AAAA", "MCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]
        {
            assert_eq!(decode_public(text), Err(PublicKeyError::Form), "{text}");
        }
    }
}
