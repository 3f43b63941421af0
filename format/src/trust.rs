//! The trust file: which keys may sign what, how many of them it takes, and how one trust file follows another.

mod document;

use crate::{
    Digest, Timestamp,
    dsse::{Envelope, EnvelopeError, TRUST_PAYLOAD},
    key::KeyId,
    statement::Kind,
};
pub use document::{MAX_LEN, ParseTrustError, starter};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The next trust file.
    Root,
    /// Artifacts of kind [`Kind::Appliance`].
    Appliance,
    /// Artifacts of kind [`Kind::Data`].
    Data,
    /// Artifacts of kind [`Kind::Sources`].
    Sources,
    /// Artifacts of kind [`Kind::Export`].
    Export,
    /// Site configurations of appliances. Where a trust file names a threshold for it, unsigned ones are ignored.
    Site,
}

impl Role {
    /// The role that a release of this kind has to be signed with.
    pub const fn for_kind(kind: Kind) -> Self {
        match kind {
            Kind::Appliance => Self::Appliance,
            Kind::Data => Self::Data,
            Kind::Sources => Self::Sources,
            Kind::Export => Self::Export,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Appliance => "appliance",
            Self::Data => "data",
            Self::Sources => "sources",
            Self::Export => "export",
            Self::Site => "site",
        })
    }
}

/// Against which time validity windows and expiry are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The verifier's own time.
    Now(Timestamp),
    /// The release was accepted earlier: time stops acceptance, not the boot of what was accepted.
    AlreadyAccepted,
}

/// A key of the trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Name for people: 1 to 64 of `A-Z a-z 0-9 . _ @ -`.
    pub name: String,
    /// The key.
    pub key: VerifyingKey,
    /// What it may sign.
    pub roles: Vec<Role>,
    /// Its signatures are taken from this time on.
    pub not_before: Option<Timestamp>,
    /// Its signatures are taken up to and including this time.
    pub not_after: Option<Timestamp>,
    /// Its signatures are never taken.
    pub revoked: bool,
}

/// A key that made a right signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Name in the trust file.
    pub name: String,
    /// The key's identifier.
    pub key: KeyId,
    /// What it may sign.
    pub roles: Vec<Role>,
}

/// A trust file.
#[derive(Debug, Clone)]
pub struct Trust {
    counter: u64,
    keys: BTreeMap<KeyId, TrustedKey>,
    thresholds: BTreeMap<Role, usize>,
    fingerprint: Digest,
}

/// Why signatures are not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no signature at all.
    #[error("nobody has signed it")]
    Unsigned,
    /// A signature by a key that the trust file does not list.
    #[error("one signature is by the key {0}, which the trust file does not know")]
    UnknownKey(KeyId),
    /// A signature that does not verify.
    #[error("the signature of {name} is wrong: what was signed has changed, or somebody else made the signature")]
    WrongSignature {
        /// Name of the key.
        name: String,
    },
    /// A signature by a revoked key.
    #[error("one signature is by {name}, and the trust file revokes that key")]
    Revoked {
        /// Name of the key.
        name: String,
    },
    /// A signature by a key whose time has not come.
    #[error("one signature is by {name}, whose key is valid from {from} on, and it is {now}")]
    TooEarly {
        /// Name of the key.
        name: String,
        /// Start of its window.
        from: Timestamp,
        /// The verifier's time.
        now: Timestamp,
    },
    /// A signature by a key whose time is over.
    #[error("one signature is by {name}, whose key was valid until {until}, and it is {now}")]
    TooLate {
        /// Name of the key.
        name: String,
        /// End of its window.
        until: Timestamp,
        /// The verifier's time.
        now: Timestamp,
    },
    /// A signature by a key that may sign other things only.
    #[error("one signature is by {name}, whose key may not sign for the role {role}")]
    WrongRole {
        /// Name of the key.
        name: String,
        /// The role that was needed.
        role: Role,
    },
    /// The trust file names no threshold for the role.
    #[error("the trust file lets nobody sign for the role {0}")]
    NobodyMay(Role),
    /// Too few signatures.
    #[error("it takes {needed} signatures for the role {role}, and there are {found}")]
    TooFew {
        /// The role that was needed.
        role: Role,
        /// The threshold.
        needed: usize,
        /// Signatures found.
        found: usize,
    },
    /// The envelope of a trust file is refused.
    #[error("the signed trust file cannot be read: {0}")]
    Envelope(#[from] EnvelopeError),
    /// A trust file is refused.
    #[error("the trust file cannot be used: {0}")]
    Parse(#[from] ParseTrustError),
    /// The next trust file is no later one.
    #[error("the new trust file has counter {found}, and only a higher one than {current} can follow")]
    NotNewer {
        /// Counter of the new file.
        found: u64,
        /// Counter of the present file.
        current: u64,
    },
}

impl Trust {
    /// Reads a trust file; see `docs/format.md` for its form.
    ///
    /// # Errors
    /// See [`ParseTrustError`].
    pub fn parse(raw: &[u8]) -> Result<Self, ParseTrustError> {
        document::parse(raw)
    }

    /// Rises with every trust file that follows another.
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// SHA-256 of the file, to be compared by people.
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The keys by identifier.
    pub const fn keys(&self) -> &BTreeMap<KeyId, TrustedKey> {
        &self.keys
    }

    /// How many signatures a role takes; `None` when nobody may sign for it.
    pub fn threshold(&self, role: Role) -> Option<usize> {
        self.thresholds.get(&role).copied()
    }

    /// The makers of all signatures of an envelope. Every one must be by a listed key that is neither revoked nor out of
    /// its window, and must verify: nothing unexplained may sit beside a good signature.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn signers(&self, envelope: &Envelope, clock: Clock) -> Result<Vec<Signer>, TrustError> {
        if envelope.signatures().is_empty() {
            return Err(TrustError::Unsigned);
        }
        envelope.signatures().keys().map(|id| self.signer(envelope, id, clock)).collect()
    }

    fn signer(&self, envelope: &Envelope, id: &KeyId, clock: Clock) -> Result<Signer, TrustError> {
        let trusted = self.keys.get(id).ok_or(TrustError::UnknownKey(*id))?;
        let name = trusted.name.clone();
        if trusted.revoked {
            return Err(TrustError::Revoked { name });
        }
        if !envelope.is_signed_by(&trusted.key) {
            return Err(TrustError::WrongSignature { name });
        }
        if let Clock::Now(now) = clock {
            if let Some(from) = trusted.not_before.filter(|from| now < *from) {
                return Err(TrustError::TooEarly { name, from, now });
            }
            if let Some(until) = trusted.not_after.filter(|until| now > *until) {
                return Err(TrustError::TooLate { name, until, now });
            }
        }
        Ok(Signer { name, key: *id, roles: trusted.roles.clone() })
    }

    /// Whether these signers suffice for a role: each has it, and there are enough of them.
    ///
    /// # Errors
    /// [`TrustError::WrongRole`], [`TrustError::NobodyMay`] or [`TrustError::TooFew`].
    pub fn authorise(&self, signers: &[Signer], role: Role) -> Result<(), TrustError> {
        if let Some(signer) = signers.iter().find(|signer| !signer.roles.contains(&role)) {
            return Err(TrustError::WrongRole { name: signer.name.clone(), role });
        }
        let needed = self.threshold(role).ok_or(TrustError::NobodyMay(role))?;
        let found = signers.len();
        if found < needed { Err(TrustError::TooFew { role, needed, found }) } else { Ok(()) }
    }

    /// Reads the trust file that follows this one: an envelope over its raw bytes, signed by this file's root keys, with
    /// a higher counter. The raw bytes to keep come with it.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn successor(&self, envelope: &[u8], clock: Clock) -> Result<(Self, Vec<u8>), TrustError> {
        let envelope = Envelope::decode(envelope, TRUST_PAYLOAD)?;
        let signers = self.signers(&envelope, clock)?;
        self.authorise(&signers, Role::Root)?;
        let next = Self::parse(envelope.payload())?;
        if next.counter <= self.counter {
            return Err(TrustError::NotNewer { found: next.counter, current: self.counter });
        }
        Ok((next, envelope.payload().to_vec()))
    }
}

/// Signs the raw bytes of a trust file, or adds a signature to `envelope`, which must hold the same bytes.
///
/// # Errors
/// [`TrustError::Parse`] when the file could not be used, [`TrustError::Envelope`] when it cannot be signed.
pub fn sign_trust(raw: &[u8], envelope: Option<&[u8]>, key: &SigningKey) -> Result<Vec<u8>, TrustError> {
    Trust::parse(raw)?;
    let mut signed = match envelope {
        Some(bytes) => Envelope::decode(bytes, TRUST_PAYLOAD)?,
        None => Envelope::new(TRUST_PAYLOAD, raw.to_vec()),
    };
    if signed.payload() != raw {
        return Err(EnvelopeError::PayloadType("this trust file").into());
    }
    signed.sign(key)?;
    Ok(signed.encode()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dsse::STATEMENT_PAYLOAD, key};

    fn signing_key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn entry(seed: u8, roles: &str, more: &str) -> String {
        let public = key::encode_public(&signing_key(seed).verifying_key());
        format!("[[key]]\nname = \"k{seed}\"\npublic = \"{public}\"\nroles = [{roles}]\n{more}\n")
    }

    fn trust(counter: u64) -> String {
        [
            format!("version = 1\ncounter = {counter}\n"),
            entry(1, "\"root\", \"appliance\"", ""),
            entry(2, "\"root\", \"appliance\"", "not_before = 2026-01-01T00:00:00Z\nnot_after = 2026-12-31T00:00:00Z"),
            entry(3, "\"data\"", ""),
            entry(4, "\"appliance\"", "revoked = true"),
            "[role.root]\nthreshold = 2\n[role.appliance]\nthreshold = 2\n[role.data]\nthreshold = 1\n".into(),
        ]
        .concat()
    }

    fn check(seeds: &[u8], role: Role, now: &str) -> Result<(), TrustError> {
        let trust = Trust::parse(trust(1).as_bytes()).unwrap();
        let mut envelope = Envelope::new(STATEMENT_PAYLOAD, b"x".to_vec());
        for seed in seeds {
            envelope.sign(&signing_key(*seed)).unwrap();
        }
        let signers = trust.signers(&envelope, Clock::Now(now.parse().unwrap()))?;
        trust.authorise(&signers, role)
    }

    const NOW: &str = "2026-06-01T00:00:00Z";

    #[test]
    fn enough_good_keys_are_trusted() {
        assert_eq!(check(&[1, 2], Role::Appliance, NOW), Ok(()));
        assert_eq!(check(&[3], Role::Data, NOW), Ok(()));
    }

    #[test]
    fn too_few_unknown_revoked_and_misused_keys_are_not() {
        assert_eq!(check(&[], Role::Data, NOW), Err(TrustError::Unsigned));
        assert!(matches!(check(&[1], Role::Appliance, NOW), Err(TrustError::TooFew { needed: 2, found: 1, .. })));
        assert!(matches!(check(&[1, 2, 9], Role::Appliance, NOW), Err(TrustError::UnknownKey(_))));
        assert!(matches!(check(&[1, 2, 4], Role::Appliance, NOW), Err(TrustError::Revoked { .. })));
        assert!(matches!(check(&[3], Role::Appliance, NOW), Err(TrustError::WrongRole { .. })));
        assert!(matches!(check(&[1, 2, 3], Role::Appliance, NOW), Err(TrustError::WrongRole { .. })));
        assert!(matches!(check(&[3], Role::Export, NOW), Err(TrustError::WrongRole { .. })));
    }

    #[test]
    fn keys_outside_their_window_are_not_trusted() {
        assert!(matches!(check(&[1, 2], Role::Appliance, "2025-12-31T23:59:59Z"), Err(TrustError::TooEarly { .. })));
        assert!(matches!(check(&[1, 2], Role::Appliance, "2026-12-31T00:00:01Z"), Err(TrustError::TooLate { .. })));
        assert_eq!(check(&[1, 2], Role::Appliance, "2026-12-31T00:00:00Z"), Ok(()));
    }

    #[test]
    fn a_trust_file_follows_another_when_the_old_one_signs_it() {
        let old = Trust::parse(trust(1).as_bytes()).unwrap();
        let clock = Clock::Now(NOW.parse().unwrap());
        let next = trust(2);
        let one = sign_trust(next.as_bytes(), None, &signing_key(1)).unwrap();
        assert!(matches!(old.successor(&one, clock), Err(TrustError::TooFew { .. })));
        let two = sign_trust(next.as_bytes(), Some(&one), &signing_key(2)).unwrap();
        let (read, raw) = old.successor(&two, clock).unwrap();
        assert_eq!((read.counter(), raw.as_slice()), (2, next.as_bytes()));
        assert!(matches!(read.successor(&two, clock), Err(TrustError::NotNewer { .. })));
        let with_data_key = sign_trust(next.as_bytes(), Some(&two), &signing_key(3)).unwrap();
        assert!(matches!(old.successor(&with_data_key, clock), Err(TrustError::WrongRole { .. })));
        assert!(sign_trust(trust(3).as_bytes(), Some(&one), &signing_key(2)).is_err());
    }
}
