//! Patterns of the user's own.

use regex::{Regex, RegexBuilder};
use std::ops::Range;

/// Memory that a compiled pattern may take.
const SIZE: usize = 1 << 20;
const NAMES: [&str; 6] = ["SECRET", "EMAIL", "IBAN", "CARD", "IP", "PHONE"];

/// A pattern with a name, in the syntax of the `regex` crate: no look-around, time linear in the text.
#[derive(Debug, Clone)]
pub struct OwnPattern {
    name: String,
    regex: Regex,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The name cannot stand in a placeholder.
    #[error(
        "the name of a pattern is 1 to 30 capital letters, digits and underscores, beginning with a letter, not `{0}`"
    )]
    Name(String),
    /// Two patterns of one name, or one of a built-in name.
    #[error("the name `{0}` is taken; give the pattern another one")]
    Taken(String),
    /// Not a pattern.
    #[error("the pattern {name} is refused: {reason}")]
    Invalid {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It finds nothing everywhere.
    #[error("the pattern {0} matches the empty text; let it match at least one character")]
    Empty(String),
}

impl OwnPattern {
    /// A pattern whose finds are replaced by `[NAME_1]`, `[NAME_2]`, ….
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(name: &str, pattern: &str) -> Result<Self, PatternError> {
        let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        if !begins || name.len() > 30 || !name.bytes().all(allowed) {
            return Err(PatternError::Name(name.chars().take(40).collect()));
        }
        let regex = RegexBuilder::new(pattern)
            .size_limit(SIZE)
            .build()
            .map_err(|error| PatternError::Invalid { name: name.to_owned(), reason: error.to_string() })?;
        if regex.is_match("") {
            return Err(PatternError::Empty(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), regex })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        self.regex.find_iter(text).map(|found| found.range()).collect()
    }
}

pub(super) fn check_names(own: &[OwnPattern]) -> Result<(), PatternError> {
    for (index, pattern) in own.iter().enumerate() {
        let twice = own.iter().take(index).any(|other| other.name == pattern.name);
        if twice || NAMES.contains(&pattern.name.as_str()) {
            return Err(PatternError::Taken(pattern.name.clone()));
        }
    }
    Ok(())
}
