//! Personal data and secrets: found, reported, replaced.
//!
//! Each kind has a pattern that finds candidates and, where the kind has one, a check that tells them from other text:
//! mod 97 for account numbers, Luhn for cards, assigned country codes for telephone numbers, entropy for secrets. What
//! it finds and what it misses on text that it was not made on is measured, and stated in `docs/data.md`.
//!
//! Nothing here tells what was found: reports hold kinds, places and shapes.

mod account;
mod address;
mod card;
mod email;
mod own;
mod phone;
mod redact;
mod report;
mod secret;
#[cfg(test)]
mod tests;

pub use own::{OwnPattern, PatternError};
pub(crate) use redact::Redactor;
pub(crate) use report::shape;
pub use report::{PiiReport, PiiSample};

use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, sync::Arc};

/// What is done about personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PiiAction {
    /// It is not looked for.
    Off,
    /// It is reported and kept.
    Report,
    /// It is reported and replaced by placeholders such as `[EMAIL_1]`.
    #[default]
    Redact,
    /// The data set is refused if there is any.
    Refuse,
}

/// The kinds of personal data and secrets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PiiKind {
    /// Keys, tokens and passwords.
    Secret,
    /// E-mail addresses.
    Email,
    /// Bank account numbers (ISO 13616).
    Iban,
    /// Payment card numbers (ISO/IEC 7812).
    Card,
    /// IP addresses, version 4 and 6.
    Ip,
    /// Telephone numbers.
    Phone,
    /// What a pattern of the user's finds; its name.
    Own(Arc<str>),
}

impl PiiKind {
    /// The name in placeholders.
    pub fn name(&self) -> &str {
        match self {
            Self::Secret => "SECRET",
            Self::Email => "EMAIL",
            Self::Iban => "IBAN",
            Self::Card => "CARD",
            Self::Ip => "IP",
            Self::Phone => "PHONE",
            Self::Own(name) => name,
        }
    }
}

impl fmt::Display for PiiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for PiiKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: PiiKind,
    /// Its bytes in the text.
    pub range: Range<usize>,
}

/// Finds personal data.
#[derive(Debug, Clone)]
pub struct Detector {
    own: Vec<OwnPattern>,
    patterns: Arc<Patterns>,
}

/// Compiled once.
#[derive(Debug)]
struct Patterns {
    secret: secret::Secrets,
    email: email::Emails,
    account: account::Accounts,
    card: card::Cards,
    address: address::Addresses,
    phone: phone::Phones,
}

impl Detector {
    /// A detector of all kinds, and of the user's own.
    ///
    /// # Errors
    /// [`PatternError`] if a pattern cannot be compiled.
    pub fn new(own: Vec<OwnPattern>) -> Result<Self, PatternError> {
        own::check_names(&own)?;
        let patterns = Patterns {
            secret: secret::Secrets::new()?,
            email: email::Emails::new()?,
            account: account::Accounts::new()?,
            card: card::Cards::new()?,
            address: address::Addresses::new()?,
            phone: phone::Phones::new()?,
        };
        Ok(Self { own, patterns: Arc::new(patterns) })
    }

    /// All that is found in a text, in order and without overlaps. Where kinds overlap, the user's own win, then in the
    /// order of [`PiiKind`]: an account number is not taken for a telephone number.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        for own in &self.own {
            let kind = PiiKind::Own(own.name().into());
            claim(&mut found, &kind, own.find(text));
        }
        let patterns = &self.patterns;
        claim(&mut found, &PiiKind::Secret, patterns.secret.find(text));
        claim(&mut found, &PiiKind::Email, patterns.email.find(text));
        // All others have digits, or colons.
        if text.bytes().any(|byte| byte.is_ascii_digit() || byte == b':') {
            claim(&mut found, &PiiKind::Iban, patterns.account.find(text));
            claim(&mut found, &PiiKind::Card, patterns.card.find(text));
            claim(&mut found, &PiiKind::Ip, patterns.address.find(text));
            claim(&mut found, &PiiKind::Phone, patterns.phone.find(text));
        }
        found.sort_by_key(|finding| finding.range.start);
        found
    }
}

/// Adds what overlaps with nothing that was found before.
fn claim(found: &mut Vec<Finding>, kind: &PiiKind, ranges: Vec<Range<usize>>) {
    for range in ranges {
        let free = found.iter().all(|other| other.range.end <= range.start || range.end <= other.range.start);
        if free && !range.is_empty() {
            found.push(Finding { kind: kind.clone(), range });
        }
    }
}

/// A pattern of this crate's own; that it compiles is tested.
fn pattern(text: &str) -> Result<regex::Regex, PatternError> {
    regex::Regex::new(text)
        .map_err(|error| PatternError::Invalid { name: "built in".to_owned(), reason: error.to_string() })
}

/// The character before a position, and the one at it.
fn around(text: &str, range: &Range<usize>) -> (Option<char>, Option<char>) {
    let before = text.get(..range.start).and_then(|text| text.chars().next_back());
    let after = text.get(range.end..).and_then(|text| text.chars().next());
    (before, after)
}

/// Up to `bytes` bytes of text before a position, in small letters.
fn context(text: &str, end: usize, bytes: usize) -> String {
    let mut start = end.saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..end).unwrap_or_default().to_lowercase()
}

/// The digits of a text.
fn digits(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect()
}
