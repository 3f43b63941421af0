//! OpenPGP keys made for one test, and messages signed with them.

use pgp::{
    composed::{CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder},
    crypto::hash::HashAlgorithm,
    packet::{KeyFlags, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData},
    ser::Serialize,
    types::{Duration, KeyDetails, Password, SignedUser, SigningKey, Tag, Timestamp},
};
use rand::{SeedableRng, rngs::StdRng};

/// When all keys are made: 2025-01-01.
pub const MADE: u32 = 1_735_689_600;
pub const DAY: u32 = 24 * 3600;

pub struct Key(SignedSecretKey);

impl Key {
    /// A key with a signing subkey, always the same for one seed.
    pub fn new(seed: u64) -> Self {
        Self::of_type(seed, KeyType::Ed25519Legacy)
    }

    /// An RSA key, which unlike the others can sign with weak hashes.
    pub fn rsa(seed: u64) -> Self {
        Self::of_type(seed, KeyType::Rsa(2048))
    }

    fn of_type(seed: u64, kind: KeyType) -> Self {
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .created_at(Timestamp::from_secs(MADE))
            .build()
            .unwrap();
        let mut builder = SecretKeyParamsBuilder::default();
        builder.key_type(kind).can_certify(true).can_sign(true).created_at(Timestamp::from_secs(MADE));
        builder.primary_user_id(format!("Test {seed} <test@example.org>")).subkey(subkey);
        Self(builder.build().unwrap().generate(StdRng::seed_from_u64(seed)).unwrap())
    }

    /// The same key with a lifetime.
    pub fn expiring(mut self, seconds: u32) -> Self {
        let key = &self.0.primary_key;
        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        flags.set_certify(true);
        let config = config(
            SignatureType::CertPositive,
            HashAlgorithm::Sha256,
            key,
            MADE + 1,
            vec![SubpacketData::KeyExpirationTime(Duration::from_secs(seconds)), SubpacketData::KeyFlags(flags)],
        );
        let id = self.0.details.users[0].id.clone();
        let signature = config.sign_certification(key, key.public_key(), &Password::empty(), Tag::UserId, &id).unwrap();
        self.0.details.users = vec![SignedUser::new(id, vec![signature])];
        self
    }

    /// The same key, revoked by itself.
    pub fn revoked(mut self) -> Self {
        let key = &self.0.primary_key;
        let config = config(SignatureType::KeyRevocation, HashAlgorithm::Sha256, key, MADE + 1, vec![]);
        let signature = config.sign_key(key, &Password::empty(), key.public_key()).unwrap();
        self.0.details.revocation_signatures.push(signature);
        self
    }

    /// The same key whose subkey claims what only the primary key may grant: its binding is gone bad.
    pub fn with_unbound_subkey(mut self, other: &Self) -> Self {
        self.0.secret_subkeys[0].signatures = other.0.secret_subkeys[0].signatures.clone();
        self
    }

    pub fn public(&self) -> Vec<u8> {
        self.0.to_public_key().to_bytes().unwrap()
    }

    pub fn sign(&self, text: &str) -> Signature {
        sign(&self.0.primary_key, text, HashAlgorithm::Sha512, MADE + DAY)
    }

    pub fn sign_with_subkey(&self, text: &str) -> Signature {
        sign(&self.0.secret_subkeys[0].key, text, HashAlgorithm::Sha256, MADE + DAY)
    }

    pub fn sign_with(&self, text: &str, hash: HashAlgorithm, at: u32) -> Signature {
        sign(&self.0.primary_key, text, hash, at)
    }
}

fn config(
    kind: SignatureType,
    hash: HashAlgorithm,
    key: &impl KeyDetails,
    at: u32,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), hash);
    let subpackets = [
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(at)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ];
    config.hashed_subpackets =
        subpackets.into_iter().chain(more).map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

fn sign(key: &impl SigningKey, text: &str, hash: HashAlgorithm, at: u32) -> Signature {
    let canonical = text.replace('\n', "\r\n");
    let config = config(SignatureType::Text, hash, key, at, vec![]);
    config.sign(key, &Password::empty(), canonical.as_bytes()).unwrap()
}

/// A clear-signed message with these signatures.
pub fn message(text: &str, signatures: Vec<Signature>) -> String {
    CleartextSignedMessage::new_many(text, |_| Ok(signatures)).unwrap().to_armored_string(None.into()).unwrap()
}
