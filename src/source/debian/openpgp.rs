//! Clear-signed OpenPGP messages and the keyrings that they are checked against
//! (RFC 9580, section 7).

use pgp::{
    armor::Dearmor,
    composed::{Deserializable, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Packet, PacketParser, PublicKey, PublicSubkey, Signature, SignatureType},
    types::{KeyDetails, Tag},
};
use std::{collections::BTreeSet, io::BufReader, path::Path};

/// Largest keyring read.
const KEYRING_MAX: u64 = 16 << 20;
/// Seconds by which a signature may lie in the future, for clocks that are a little off.
const CLOCK_SKEW: i64 = 24 * 3600;

/// Why a clear-signed message is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature at all.
    #[error("it is not signed")]
    Unsigned,
    /// It is not a clear-signed message of the strict form.
    #[error("line {line}: {problem}")]
    Malformed {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The signature block cannot be read.
    #[error("the signature block cannot be read: {0}")]
    Block(String),
    /// A known key's signature does not match the text.
    #[error("the signature by key {0} does not match the text: it was changed after it was signed")]
    Bad(String),
    /// Only keys signed that the keyring does not hold.
    #[error("it is signed by {}, of which the keyring holds none", .0.join(", "))]
    UnknownKey(Vec<String>),
    /// The key expired.
    #[error("the key {key} that signed it expired on {expired}; a newer keyring may hold its successor")]
    ExpiredKey {
        /// Fingerprint.
        key: String,
        /// Date.
        expired: String,
    },
    /// The key was revoked.
    #[error("the key {0} that signed it was revoked")]
    RevokedKey(String),
    /// The signature itself is over, or not yet valid.
    #[error("the signature by key {key} {problem}")]
    Time {
        /// Fingerprint.
        key: String,
        /// What is wrong with its time.
        problem: &'static str,
    },
    /// The signature uses a hash that is too weak.
    #[error("the signature by key {key} uses {hash}, which is too weak")]
    WeakHash {
        /// Fingerprint.
        key: String,
        /// Name of the hash.
        hash: String,
    },
}

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Reading failed.
    #[error("cannot read the keyring {path}: {source}; install debian-archive-keyring or name another keyring")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("the keyring {0} is larger than {KEYRING_MAX} bytes")]
    TooLarge(String),
    /// No key in it can be used.
    #[error("the keyring holds no OpenPGP key that can sign")]
    Empty,
}

/// A message whose signature is not verified yet.
#[derive(Debug)]
pub struct ClearSigned {
    /// The text that the signatures cover: escapes undone, trailing blanks gone, `\n` line ends.
    text: String,
    signatures: Vec<Signature>,
}

impl ClearSigned {
    /// Takes a message apart. Nothing but blanks may stand before or after it, headers other than
    /// `Hash` are refused, as is a line with an unescaped dash: so no reader can take another text
    /// for the signed one.
    ///
    /// # Errors
    /// [`SignatureError::Unsigned`], [`SignatureError::Malformed`] or [`SignatureError::Block`].
    pub fn parse(message: &str) -> Result<Self, SignatureError> {
        let mut lines = message.lines().map(|line| line.trim_end_matches([' ', '\t', '\r'])).enumerate();
        let malformed = |index: usize, problem| SignatureError::Malformed { line: index + 1, problem };
        match lines.next() {
            Some((_, "-----BEGIN PGP SIGNED MESSAGE-----")) => {}
            _ if message.contains("-----BEGIN PGP SIGNED MESSAGE-----") => {
                return Err(malformed(0, "text stands before the signed message"));
            }
            _ => return Err(SignatureError::Unsigned),
        }
        for (index, line) in lines.by_ref() {
            match line {
                "" => break,
                _ if line.starts_with("Hash: ") => {}
                _ => return Err(malformed(index, "a header other than `Hash`")),
            }
        }
        let mut text = String::with_capacity(message.len());
        let mut complete = false;
        for (index, line) in lines.by_ref() {
            if line == "-----BEGIN PGP SIGNATURE-----" {
                complete = true;
                break;
            }
            match line.strip_prefix("- ") {
                Some(escaped) => text.push_str(escaped),
                None if line.starts_with('-') => return Err(malformed(index, "a dash that is not escaped")),
                None => text.push_str(line),
            }
            text.push('\n');
        }
        if !complete {
            return Err(SignatureError::Unsigned);
        }
        // The line break before the signature is not part of the text.
        text.pop();
        Ok(Self { text, signatures: read_signatures(&mut lines)? })
    }

    /// The text and the fingerprint of the key whose signature was found good.
    ///
    /// # Errors
    /// The most telling [`SignatureError`] when no signature is good at `now`, seconds since 1970.
    pub fn verify(self, keyring: &Keyring, now: i64) -> Result<(String, String), SignatureError> {
        let mut worst = None;
        let mut unknown = BTreeSet::new();
        for signature in &self.signatures {
            match keyring.check(signature, &self.text, now) {
                Ok(Some(key)) => return Ok((self.text, key)),
                Ok(None) => unknown.extend(issuers(signature)),
                Err(error) => worst = worst.or(Some(error)),
            }
        }
        Err(match worst {
            Some(error) => error,
            None if self.signatures.is_empty() => SignatureError::Unsigned,
            None => SignatureError::UnknownKey(unknown.into_iter().collect()),
        })
    }
}

fn read_signatures<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<Signature>, SignatureError> {
    let mut armor = "-----BEGIN PGP SIGNATURE-----\n".to_owned();
    let mut complete = false;
    for (_, line) in lines.by_ref() {
        armor.push_str(line);
        armor.push('\n');
        if line == "-----END PGP SIGNATURE-----" {
            complete = true;
            break;
        }
    }
    if !complete {
        return Err(SignatureError::Block("its end is missing".to_owned()));
    }
    if let Some((index, _)) = lines.find(|(_, line)| !line.is_empty()) {
        return Err(SignatureError::Malformed { line: index + 1, problem: "text follows the signature" });
    }
    let mut signatures = Vec::new();
    for packet in PacketParser::new(BufReader::new(Dearmor::new(armor.as_bytes()))) {
        match packet {
            Ok(Packet::Signature(signature)) => signatures.push(signature),
            Ok(_) => return Err(SignatureError::Block("it holds more than signatures".to_owned())),
            Err(error) => return Err(SignatureError::Block(error.to_string())),
        }
    }
    Ok(signatures)
}

fn issuers(signature: &Signature) -> BTreeSet<String> {
    let fingerprints: BTreeSet<String> =
        signature.issuer_fingerprint().into_iter().map(|print| print.to_string().to_uppercase()).collect();
    if !fingerprints.is_empty() {
        return fingerprints;
    }
    signature.issuer_key_id().into_iter().map(|id| id.to_string().to_uppercase()).collect()
}

/// A key that may sign data, with what its own certificate says of it.
#[derive(Debug)]
struct Signer {
    key: Material,
    fingerprint: String,
    /// Seconds since 1970 from which it is no longer valid.
    expires: Option<i64>,
    revoked: bool,
}

#[derive(Debug)]
enum Material {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

/// Keys that are trusted to sign.
#[derive(Debug)]
pub struct Keyring {
    signers: Vec<Signer>,
}

impl Keyring {
    /// Reads a keyring file, binary or armored.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::Read { path: path.display().to_string(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > KEYRING_MAX {
            return Err(KeyringError::TooLarge(path.display().to_string()));
        }
        Self::parse(&std::fs::read(path).map_err(failed)?)
    }

    /// Reads a keyring, binary or armored. Certificates that this library cannot read are passed
    /// over; so are keys without a valid signature of their own.
    ///
    /// # Errors
    /// [`KeyringError::Empty`] when nothing usable remains.
    pub fn parse(data: &[u8]) -> Result<Self, KeyringError> {
        let (certificates, _) = SignedPublicKey::from_reader_many(data).map_err(|_| KeyringError::Empty)?;
        let signers: Vec<Signer> = certificates.flatten().flat_map(|key| signers_of(&key)).collect();
        if signers.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self { signers })
    }

    /// `Ok(None)` when no key of the ring made the signature.
    fn check(&self, signature: &Signature, text: &str, now: i64) -> Result<Option<String>, SignatureError> {
        let mut failure = None;
        let matching = self.signers.iter().filter(|signer| signer.claims(signature));
        for signer in matching {
            match signer.check(signature, text, now) {
                Ok(()) => return Ok(Some(signer.fingerprint.clone())),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

impl Signer {
    /// Whether the signature names this key as its issuer.
    fn claims(&self, signature: &Signature) -> bool {
        let (fingerprint, id) = match &self.key {
            Material::Primary(key) => (key.fingerprint(), key.legacy_key_id()),
            Material::Subkey(key) => (key.fingerprint(), key.legacy_key_id()),
        };
        let fingerprints = signature.issuer_fingerprint();
        match fingerprints.is_empty() {
            true => signature.issuer_key_id().into_iter().any(|issuer| *issuer == id),
            false => fingerprints.into_iter().any(|issuer| *issuer == fingerprint),
        }
    }

    fn check(&self, signature: &Signature, text: &str, now: i64) -> Result<(), SignatureError> {
        let key = || self.fingerprint.clone();
        if signature.typ() != Some(SignatureType::Text) && signature.typ() != Some(SignatureType::Binary) {
            return Err(SignatureError::Bad(key()));
        }
        let hash = signature.hash_alg();
        if !matches!(hash, Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)) {
            let hash = hash.map_or_else(|| "an unknown hash".to_owned(), |hash| hash.to_string());
            return Err(SignatureError::WeakHash { key: key(), hash });
        }
        // Clear-signed text is hashed with the line ends of the Internet, whatever the type says.
        let canonical = text.replace('\n', "\r\n");
        let verified = match &self.key {
            Material::Primary(public) => signature.verify(public, canonical.as_bytes()),
            Material::Subkey(public) => signature.verify(public, canonical.as_bytes()),
        };
        verified.map_err(|_| SignatureError::Bad(key()))?;
        if self.revoked {
            return Err(SignatureError::RevokedKey(key()));
        }
        if let Some(expires) = self.expires.filter(|&expires| now >= expires) {
            return Err(SignatureError::ExpiredKey { key: key(), expired: date(expires) });
        }
        let time = |problem| Err(SignatureError::Time { key: key(), problem });
        let Some(created) = signature.created().map(|time| i64::from(time.as_secs())) else {
            return time("does not say when it was made");
        };
        if created > now + CLOCK_SKEW {
            return time("was made in the future; is the clock right?");
        }
        match signature.signature_expiration_time().map(|age| i64::from(age.as_secs())) {
            Some(age) if age > 0 && now >= created + age => time("has expired"),
            _ => Ok(()),
        }
    }
}

/// The day of a moment, as `2031-01-27`.
pub(super) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// The keys of a certificate that may sign data.
fn signers_of(certificate: &SignedPublicKey) -> Vec<Signer> {
    let primary = &certificate.primary_key;
    let Some(binding) = newest(primary_bindings(certificate)) else { return Vec::new() };
    let revocations = certificate.details.revocation_signatures.iter();
    let revoked = revocations.clone().any(|revocation| revocation.verify_key(primary).is_ok());
    let expires = expiry(primary.created_at().as_secs(), binding);
    let mut signers = Vec::new();
    let flags = binding.key_flags();
    // A certificate that says nothing about use may be used for everything.
    if flags.sign() || !(flags.certify() || flags.encrypt_comms() || flags.encrypt_storage() || flags.authentication())
    {
        signers.push(Signer {
            key: Material::Primary(primary.clone()),
            fingerprint: primary.fingerprint().to_string().to_uppercase(),
            expires,
            revoked,
        });
    }
    signers.extend(certificate.public_subkeys.iter().filter_map(|subkey| {
        let mut signer = subkey_signer(primary, subkey)?;
        signer.revoked |= revoked;
        signer.expires = [signer.expires, expires].into_iter().flatten().min();
        Some(signer)
    }));
    signers
}

fn primary_bindings(certificate: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let primary = &certificate.primary_key;
    let users = certificate.details.users.iter().flat_map(move |user| {
        user.signatures.iter().filter(move |signature| {
            signature.typ() != Some(SignatureType::CertRevocation)
                && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    let direct = certificate.details.direct_signatures.iter();
    users.chain(
        direct.filter(move |signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        }),
    )
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map_or(0, |time| time.as_secs()))
}

fn expiry(created: u32, binding: &Signature) -> Option<i64> {
    let age = binding.key_expiration_time().map(|age| i64::from(age.as_secs())).filter(|&age| age > 0)?;
    Some(i64::from(created) + age)
}

/// A subkey that its primary key bound for signing, and that agreed to it (RFC 9580, 10.1.5).
fn subkey_signer(primary: &PublicKey, subkey: &SignedPublicSubKey) -> Option<Signer> {
    let valid = |signature: &&Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
    let of_type = |wanted| move |signature: &&Signature| signature.typ() == Some(wanted);
    let bindings = subkey.signatures.iter().filter(of_type(SignatureType::SubkeyBinding)).filter(valid);
    let binding = newest(bindings).filter(|binding| binding.key_flags().sign())?;
    binding.embedded_signature()?.verify_primary_key_binding(&subkey.key, primary).ok()?;
    Some(Signer {
        key: Material::Subkey(subkey.key.clone()),
        fingerprint: subkey.key.fingerprint().to_string().to_uppercase(),
        expires: expiry(subkey.key.created_at().as_secs(), binding),
        revoked: subkey.signatures.iter().filter(of_type(SignatureType::SubkeyRevocation)).any(|s| valid(&s)),
    })
}
