//! Signed envelopes (DSSE v1.0) in one canonical encoding, and the fixed region that holds a release's envelope.
//!
//! Verifiers of others accept extra fields and unknown signatures, and with them bytes that nobody answers for. Here an
//! envelope has one encoding; what does not come out of encoding it again as it was read is refused.

use crate::{canonical, canonical::CanonicalError, key::KeyId};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the member that holds a release's envelope.
pub const PATH: &str = "release.dsse.json";

/// Bytes of that member, whatever it holds: the envelope, then spaces.
pub const REGION_LEN: u64 = 64 * 1024;

/// Payload type of an in-toto statement.
pub const STATEMENT_PAYLOAD: &str = "application/vnd.in-toto+json";

/// Payload type of a trust file.
pub const TRUST_PAYLOAD: &str = "application/vnd.gapimage.trust.v1+toml";

/// Most signatures in one envelope.
pub const MAX_SIGNATURES: usize = 64;

/// Largest envelope outside an artifact, in bytes.
pub const MAX_LEN: usize = 512 * 1024;

/// A payload and the signatures over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: BTreeMap<KeyId, [u8; 64]>,
}

/// Why an envelope is refused or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// See [`CanonicalError`].
    #[error("{0}")]
    Canonical(#[from] CanonicalError),
    /// The payload is not of the wanted kind.
    #[error("it holds another kind of payload than {0}")]
    PayloadType(&'static str),
    /// Too many bytes or signatures.
    #[error("it does not fit: at most {MAX_SIGNATURES} signatures and {0} bytes")]
    TooLarge(usize),
    /// The key signed already.
    #[error("the key {0} has signed it already")]
    AlreadySigned(KeyId),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<DocumentSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// An envelope nobody has signed yet.
    pub fn new(payload_type: &'static str, payload: Vec<u8>) -> Self {
        Self { payload_type: payload_type.to_owned(), payload, signatures: BTreeMap::new() }
    }

    /// What is signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures by key, in the order of the key identifiers.
    pub const fn signatures(&self) -> &BTreeMap<KeyId, [u8; 64]> {
        &self.signatures
    }

    /// The bytes that a signature is over (DSSE v1.0, "PAE").
    pub fn pre_authentication_encoding(&self) -> Vec<u8> {
        let (kind, body) = (&self.payload_type, &self.payload);
        let mut encoding = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
        encoding.extend_from_slice(body);
        encoding
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// [`EnvelopeError::AlreadySigned`], or [`EnvelopeError::TooLarge`] past [`MAX_SIGNATURES`].
    pub fn sign(&mut self, key: &SigningKey) -> Result<KeyId, EnvelopeError> {
        let id = KeyId::of(&key.verifying_key());
        let signature = key.sign(&self.pre_authentication_encoding());
        self.add(id, signature.to_bytes())?;
        Ok(id)
    }

    /// Puts a signature in that was made before and kept elsewhere than in an encoded envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::AlreadySigned`], or [`EnvelopeError::TooLarge`] past [`MAX_SIGNATURES`].
    pub fn add(&mut self, id: KeyId, signature: [u8; 64]) -> Result<(), EnvelopeError> {
        if self.signatures.contains_key(&id) {
            return Err(EnvelopeError::AlreadySigned(id));
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(EnvelopeError::TooLarge(MAX_LEN));
        }
        self.signatures.insert(id, signature);
        Ok(())
    }

    /// Whether the signature of this key is there and right (Ed25519, RFC 8032, strict: one encoding, no weak key).
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = self.signatures.get(&KeyId::of(key)).map(Signature::from_bytes);
        signature.is_some_and(|it| key.verify_strict(&self.pre_authentication_encoding(), &it).is_ok())
    }

    /// The canonical encoding, without padding.
    ///
    /// # Errors
    /// Never for a value of this type; see [`canonical::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let signature =
            |(keyid, sig): (&KeyId, &[u8; 64])| DocumentSignature { keyid: *keyid, sig: STANDARD.encode(sig) };
        let document = Document {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        Ok(canonical::encode(&document)?)
    }

    /// Reads one envelope with a payload of this type; only what [`encode`](Self::encode) writes is taken.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn decode(bytes: &[u8], payload_type: &'static str) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_LEN {
            return Err(EnvelopeError::TooLarge(MAX_LEN));
        }
        let document: Document = canonical::decode(bytes)?;
        if document.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType(payload_type));
        }
        if document.signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::TooLarge(MAX_LEN));
        }
        let mut envelope = Self::new(payload_type, from_base64(&document.payload)?);
        for signature in document.signatures {
            let bytes = from_base64(&signature.sig)?;
            let bytes =
                bytes.try_into().map_err(|_| CanonicalError::Shape("a signature is not 64 bytes long".into()))?;
            envelope.signatures.insert(signature.keyid, bytes);
        }
        // Base64, the order of signatures and doubled ones are settled here: there is one way to write an envelope.
        if envelope.encode()? == bytes { Ok(envelope) } else { Err(CanonicalError::Encoding.into()) }
    }

    /// The [`REGION_LEN`] bytes of the member `release.dsse.json`.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] when it does not fit.
    pub fn encode_region(&self) -> Result<Vec<u8>, EnvelopeError> {
        let region_len = usize::try_from(REGION_LEN).unwrap_or(usize::MAX);
        let mut bytes = self.encode()?;
        if bytes.len() > region_len {
            return Err(EnvelopeError::TooLarge(region_len));
        }
        bytes.resize(region_len, b' ');
        Ok(bytes)
    }

    /// Reads the member `release.dsse.json`.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn decode_region(region: &[u8]) -> Result<Self, EnvelopeError> {
        let end = region.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        Self::decode(region.get(..end).unwrap_or_default(), STATEMENT_PAYLOAD)
    }
}

fn from_base64(text: &str) -> Result<Vec<u8>, CanonicalError> {
    STANDARD.decode(text).map_err(|_| CanonicalError::Shape("a field is not base64".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn signed() -> Envelope {
        let mut envelope = Envelope::new(STATEMENT_PAYLOAD, b"{\"a\":1}".to_vec());
        for seed in [3, 1, 2] {
            envelope.sign(&key(seed)).unwrap();
        }
        envelope
    }

    #[test]
    fn the_pre_authentication_encoding_is_the_specified_one() {
        let envelope = Envelope::new(STATEMENT_PAYLOAD, b"hello".to_vec());
        assert_eq!(envelope.pre_authentication_encoding(), b"DSSEv1 28 application/vnd.in-toto+json 5 hello");
    }

    #[test]
    fn signatures_are_sorted_and_come_back() {
        let envelope = signed();
        let region = envelope.encode_region().unwrap();
        assert_eq!(region.len() as u64, REGION_LEN);
        let read = Envelope::decode_region(&region).unwrap();
        assert_eq!(read, envelope);
        assert!(read.is_signed_by(&key(2).verifying_key()));
        assert!(!read.is_signed_by(&key(4).verifying_key()));
    }

    #[test]
    fn a_key_signs_once() {
        let mut envelope = signed();
        assert!(matches!(envelope.sign(&key(1)), Err(EnvelopeError::AlreadySigned(_))));
    }

    #[test]
    fn other_encodings_of_the_same_envelope_are_refused() {
        let text = String::from_utf8(signed().encode().unwrap()).unwrap();
        let (payload, rest) = text.split_once(",\"payloadType\"").unwrap();
        let others = [
            format!(" {text}"),
            format!("{text}\n"),
            text.replace("\"signatures\"", "\"extra\":\"\",\"signatures\""),
            format!("{{\"payloadType\"{},{}}}", rest.strip_suffix('}').unwrap(), &payload[1..]),
            text.replace("==\"", "\""),
            text.replacen("\"keyid\"", "\"keyid\":\"\",\"keyid\"", 1),
            text.replacen("in-toto", "in\\u002dtoto", 1),
        ];
        for other in others {
            assert_ne!(other, text);
            assert!(Envelope::decode(other.as_bytes(), STATEMENT_PAYLOAD).is_err(), "{other}");
        }
    }

    #[test]
    fn openssl_verifies_a_signature() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let envelope = signed();
        write("pae", &envelope.pre_authentication_encoding());
        write("key.der", &crate::key::spki(&key(1).verifying_key()));
        write("sig", &envelope.signatures[&KeyId::of(&key(1).verifying_key())]);
        let arguments = "pkeyutl -verify -rawin -pubin -keyform DER -inkey key.der -in pae -sigfile sig";
        let mut openssl = std::process::Command::new("openssl");
        let Ok(output) = openssl.args(arguments.split(' ')).current_dir(folder.path()).output() else {
            return; // the tool is not installed here
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            prop_assert!(Envelope::decode_region(&bytes).is_err());
        }

        #[test]
        fn a_changed_envelope_is_refused_or_written_back_the_same(at in 0usize..10_000, byte: u8) {
            let mut bytes = signed().encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Envelope::decode(&bytes, STATEMENT_PAYLOAD) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }
    }
}
