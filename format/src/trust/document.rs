//! The trust file as TOML.

use super::{Role, Trust, TrustedKey};
use crate::{
    Digest, Timestamp,
    escape::escaped,
    key::{self, KeyId, PublicKeyError},
};
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write as _};

/// Largest trust file, in bytes.
pub const MAX_LEN: usize = 256 * 1024;

/// Most keys in a trust file.
const MAX_KEYS: usize = 256;

/// Why a trust file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTrustError {
    /// Longer than [`MAX_LEN`], or more keys than a person could have meant.
    #[error("it is too large: at most {MAX_LEN} bytes and {MAX_KEYS} keys")]
    TooLarge,
    /// No TOML, or other fields than specified.
    #[error("line {line}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// What the TOML reader said, escaped.
        message: String,
    },
    /// Made for a later version.
    #[error("it has version {0}, and this program knows version 1: use a newer one")]
    Version(u64),
    /// A key's name is empty, too long, or has other characters.
    #[error("the name of key number {0} is not 1 to 64 of A-Z a-z 0-9 . _ @ -")]
    Name(usize),
    /// A key cannot be used.
    #[error("the key {name}: {reason}")]
    Key {
        /// Name of the key.
        name: String,
        /// What is wrong with it.
        reason: PublicKeyError,
    },
    /// A time is not written as specified.
    #[error("the key {0}: a time is written without quotes, like 2026-01-31T23:59:59Z")]
    Time(String),
    /// Two entries have the same name or key.
    #[error("the key {0} is listed twice")]
    Doubled(String),
    /// The threshold cannot be met or means nothing.
    #[error("the role {role} has threshold {threshold}, and {keys} keys have that role")]
    Threshold {
        /// The role.
        role: Role,
        /// Its threshold.
        threshold: usize,
        /// Keys that have it.
        keys: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    counter: u64,
    key: Vec<KeyEntry>,
    role: BTreeMap<Role, RoleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    public: String,
    roles: Vec<Role>,
    not_before: Option<toml::value::Datetime>,
    not_after: Option<toml::value::Datetime>,
    #[serde(default)]
    revoked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    threshold: usize,
}

/// See [`Trust::parse`].
pub(super) fn parse(raw: &[u8]) -> Result<Trust, ParseTrustError> {
    if raw.len() > MAX_LEN {
        return Err(ParseTrustError::TooLarge);
    }
    let text = std::str::from_utf8(raw)
        .map_err(|_| ParseTrustError::Toml { line: 1, message: "the file is not UTF-8 text".into() })?;
    let document: Document = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
    if document.version != 1 {
        return Err(ParseTrustError::Version(document.version));
    }
    if document.key.len() > MAX_KEYS {
        return Err(ParseTrustError::TooLarge);
    }
    let keys = read_keys(document.key)?;
    let thresholds: BTreeMap<_, _> = document.role.into_iter().map(|(role, entry)| (role, entry.threshold)).collect();
    for (role, threshold) in &thresholds {
        let keys = keys.values().filter(|key: &&TrustedKey| key.roles.contains(role)).count();
        if *threshold == 0 || *threshold > keys {
            return Err(ParseTrustError::Threshold { role: *role, threshold: *threshold, keys });
        }
    }
    Ok(Trust { counter: document.counter, keys, thresholds, fingerprint: Digest::of(raw) })
}

fn toml_error(text: &str, error: &toml::de::Error) -> ParseTrustError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    ParseTrustError::Toml { line: before.matches('\n').count() + 1, message: escaped(error.message()) }
}

fn read_keys(entries: Vec<KeyEntry>) -> Result<BTreeMap<KeyId, TrustedKey>, ParseTrustError> {
    let mut keys: BTreeMap<KeyId, TrustedKey> = BTreeMap::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
        if entry.name.is_empty() || entry.name.len() > 64 || !entry.name.bytes().all(allowed) {
            return Err(ParseTrustError::Name(number + 1));
        }
        let trusted = read_key(entry)?;
        if keys.values().any(|other| other.name == trusted.name) {
            return Err(ParseTrustError::Doubled(trusted.name));
        }
        if let Some(other) = keys.insert(KeyId::of(&trusted.key), trusted) {
            return Err(ParseTrustError::Doubled(other.name));
        }
    }
    Ok(keys)
}

fn read_key(entry: KeyEntry) -> Result<TrustedKey, ParseTrustError> {
    let KeyEntry { name, public, roles, not_before, not_after, revoked } = entry;
    let key = key::decode_public(&public).map_err(|reason| ParseTrustError::Key { name: name.clone(), reason })?;
    let time = |time: Option<toml::value::Datetime>| -> Result<Option<Timestamp>, ParseTrustError> {
        time.map(|time| time.to_string().parse().map_err(|_| ParseTrustError::Time(name.clone()))).transpose()
    };
    let (not_before, not_after) = (time(not_before)?, time(not_after)?);
    Ok(TrustedKey { name, key, roles, not_before, not_after, revoked })
}

/// A trust file for a first key that may sign everything, with comments that tell how to go on from there.
///
/// `name` is 1 to 64 of `A-Z a-z 0-9 . _ @ -`.
pub fn starter(name: &str, key: &VerifyingKey) -> String {
    let roles = [Role::Root, Role::Appliance, Role::Data, Role::Sources, Role::Export];
    let list: Vec<_> = roles.iter().map(|role| format!("\"{role}\"")).collect();
    let mut text = format!(
        "# Whom this site trusts. Fingerprint: the SHA-256 of this file.\n\
         version = 1\n\
         counter = 1            # raise with every change; root keys of the file before sign the new one: gapimage trust sign\n\n\
         [[key]]\n\
         name = \"{name}\"\n\
         public = \"{}\"\n\
         roles = [{}]\n\
         # not_before = 2026-01-01T00:00:00Z\n\
         # not_after = 2028-01-01T00:00:00Z\n\
         # revoked = true\n\n\
         # How many keys with a role have to sign.\n",
        key::encode_public(key),
        list.join(", ")
    );
    for role in roles {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[role.{role}]\nthreshold = 1");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    fn text() -> String {
        starter("release", &SigningKey::from_bytes(&[1; 32]).verifying_key())
    }

    fn refused(from: &str, to: &str) -> String {
        let changed = text().replace(from, to);
        assert_ne!(changed, text(), "{from}");
        parse(changed.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_starter_is_a_trust_file() {
        let trust = parse(text().as_bytes()).unwrap();
        assert_eq!(trust.keys.len(), 1);
        assert_eq!(trust.thresholds.len(), 5);
        assert_eq!(trust.fingerprint, Digest::of(text().as_bytes()));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        assert!(refused("counter = 1", "conter = 1").starts_with("line 3: "));
        assert!(refused("[role.data]", "[role.dat]").contains("dat"));
        assert!(refused("version = 1", "version = 2").contains("newer"));
        assert!(refused("threshold = 1", "threshold = 0").contains("threshold 0"));
        assert!(refused("threshold = 1", "threshold = 2").contains("threshold 2"));
        assert!(refused("\"release\"", "\"re\\u001blease\"").contains("key number 1"));
        assert!(refused("MCowBQ", "MCowBR").contains("one line of base64"));
        assert!(refused("# not_before = 2026-01-01T00:00:00Z", "not_before = 2026-01-01").contains("like 2026"));
    }

    #[test]
    fn one_key_under_two_names_is_refused() {
        let key = text()
            .split_once("[[key]]")
            .unwrap()
            .1
            .split_once("# not_before")
            .unwrap()
            .0
            .replace("\"release\"", "\"other\"");
        let doubled = text().replace("# How many", &format!("[[key]]{key}\n# How many"));
        assert!(parse(doubled.as_bytes()).unwrap_err().to_string().contains("listed twice"));
    }

    proptest! {
        #[test]
        fn a_changed_trust_file_does_not_panic(at in 0usize..2000, byte: u8) {
            let mut bytes = text().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}
