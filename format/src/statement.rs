//! The release statement: what a signature says (in-toto Statement v1, with a predicate of this project).

use crate::{
    Digest, Timestamp, canonical,
    canonical::{CanonicalError, MAX_INTEGER},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Type of the statement (in-toto attestation framework, v1).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Type of the predicate: a release of an artifact.
pub const PREDICATE_TYPE: &str = "https://gapimage.dev/release/v1";

/// Largest statement, in bytes.
pub const MAX_LEN: usize = 16 * 1024 - 1;

/// Name of the subject.
const SUBJECT: &str = "index.json";

/// What an artifact is for; which key role may sign it follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Boots a machine.
    Appliance,
    /// Models and data sets for an appliance.
    Data,
    /// The sources of everything in an appliance.
    Sources,
    /// What an appliance gives back: adapters, metrics, logs.
    Export,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appliance => "appliance",
            Self::Data => "data",
            Self::Sources => "sources",
            Self::Export => "export",
        })
    }
}

/// What the maker of an artifact says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// What it is for.
    pub kind: Kind,
    /// Which appliance, model or data set: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// Version for people: 1 to 64 of `A-Z a-z 0-9 . _ + ~ -`, beginning with a letter or digit.
    pub version: String,
    /// Rises with every release of this name.
    pub serial: u64,
    /// The lowest serial that may still be used once this release proved healthy; at most `serial`.
    pub rollback_to: u64,
    /// Machine architecture as OCI names it (`amd64`, `arm64`), or `any`; alphabet as for `name`.
    pub architecture: String,
    /// The date of the sources; never the time of a build.
    pub source_date: Timestamp,
    /// After this time the release is not accepted any more; an accepted one goes on booting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A release statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What the maker says.
    pub release: Release,
    /// Digest of `index.json`.
    pub index: Digest,
    /// Length of the whole artifact in bytes.
    pub length: u64,
    /// Digest of `layout.json`.
    pub layout: Digest,
}

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// See [`CanonicalError`].
    #[error("{0}")]
    Canonical(#[from] CanonicalError),
    /// Longer than [`MAX_LEN`].
    #[error("it is {0} bytes long, and {MAX_LEN} is the most")]
    TooLong(usize),
    /// Some other statement.
    #[error(
        "it is no statement about a release (type {STATEMENT_TYPE}, predicate {PREDICATE_TYPE}, subject {SUBJECT})"
    )]
    Type,
    /// A field is outside its alphabet or range.
    #[error("its {field} is not {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    release: Release,
    length: u64,
    layout: Digest,
}

impl Release {
    /// Checks alphabets and ranges.
    ///
    /// # Errors
    /// [`StatementError::Field`].
    pub fn check(&self) -> Result<(), StatementError> {
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let name_like = "1 to 64 of a-z 0-9 . _ - beginning with a letter or digit";
        let names = [("name", &self.name), ("architecture", &self.architecture)];
        for (field, text) in names {
            ensure(is_word(text, lower, b"._-"), field, name_like)?;
        }
        let version_like = "1 to 64 of A-Z a-z 0-9 . _ + ~ - beginning with a letter or digit";
        ensure(is_word(&self.version, |byte| byte.is_ascii_alphanumeric(), b"._+~-"), "version", version_like)?;
        ensure((1..=MAX_INTEGER).contains(&self.serial), "serial", "from 1 to 2^53 - 1")?;
        ensure(self.rollback_to <= self.serial, "rollback_to", "at most the serial")
    }
}

impl Statement {
    /// The payload that is signed.
    ///
    /// # Errors
    /// [`StatementError::Field`] when a field is outside its alphabet or range.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        self.release.check()?;
        ensure(self.length <= MAX_INTEGER, "length", "below 2^53")?;
        let digest = SubjectDigest { sha256: self.index.to_hex() };
        let document = Document {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name: SUBJECT.to_owned(), digest }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate { release: self.release.clone(), length: self.length, layout: self.layout },
        };
        Ok(canonical::encode(&document)?)
    }

    /// Reads a payload; only what [`encode`](Self::encode) writes is taken.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > MAX_LEN {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let document: Document = canonical::decode(bytes)?;
        let [subject] = document.subject.as_slice() else { return Err(StatementError::Type) };
        let types = (document.statement_type.as_str(), document.predicate_type.as_str(), subject.name.as_str());
        if types != (STATEMENT_TYPE, PREDICATE_TYPE, SUBJECT) {
            return Err(StatementError::Type);
        }
        let index = Digest::from_hex(&subject.digest.sha256)
            .map_err(|_| StatementError::Field { field: "subject digest", expected: "64 hexadecimal digits" })?;
        let Predicate { release, length, layout } = document.predicate;
        release.check()?;
        ensure(length <= MAX_INTEGER, "length", "below 2^53")?;
        Ok(Self { release, index, length, layout })
    }
}

fn is_word(text: &str, letter: impl Fn(u8) -> bool, marks: &[u8]) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(&letter)
        && text.bytes().all(|b| letter(b) || marks.contains(&b))
}

const fn ensure(holds: bool, field: &'static str, expected: &'static str) -> Result<(), StatementError> {
    if holds { Ok(()) } else { Err(StatementError::Field { field, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statement() -> Statement {
        let release = Release {
            kind: Kind::Appliance,
            name: "quickstart".into(),
            version: "1.4.0".into(),
            serial: 7,
            rollback_to: 6,
            architecture: "amd64".into(),
            source_date: Timestamp::from_seconds(1_750_000_000).unwrap(),
            expires: None,
        };
        Statement { release, index: Digest::of(b"index"), length: 1 << 40, layout: Digest::of(b"layout") }
    }

    #[test]
    fn a_statement_comes_back_as_it_was() {
        let mut with_expiry = statement();
        with_expiry.release.expires = Some(Timestamp::from_seconds(1_800_000_000).unwrap());
        for statement in [statement(), with_expiry] {
            assert_eq!(Statement::decode(&statement.encode().unwrap()), Ok(statement));
        }
    }

    #[test]
    fn fields_outside_their_alphabet_or_range_are_refused() {
        let changes: [fn(&mut Release); 7] = [
            |r| r.name = "Quick".into(),
            |r| r.name = "-x".into(),
            |r| r.name = String::new(),
            |r| r.version = "1\u{1b}".into(),
            |r| r.version = "1".repeat(65),
            |r| r.serial = 0,
            |r| r.rollback_to = 8,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = statement();
            change(&mut changed.release);
            assert!(matches!(changed.encode(), Err(StatementError::Field { .. })), "change {number}");
        }
    }

    #[test]
    fn another_subject_or_predicate_is_refused() {
        let text = String::from_utf8(statement().encode().unwrap()).unwrap();
        for (from, to) in [("index.json", "other.json"), ("release/v1", "release/v2"), ("Statement/v1", "Statement/v0")]
        {
            assert_eq!(Statement::decode(text.replace(from, to).as_bytes()), Err(StatementError::Type), "{to}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_statement_is_refused_or_written_back_the_same(at in 0usize..1000, byte: u8) {
            let mut bytes = statement().encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Statement::decode(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }
    }
}
