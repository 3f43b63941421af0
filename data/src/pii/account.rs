//! International bank account numbers (ISO 13616), with their check digits.

use super::{PatternError, around, pattern};
use regex::Regex;
use std::ops::Range;

/// Countries and the length of their numbers (SWIFT's IBAN registry, release 99).
const LENGTHS: [(&str, usize); 89] = [
    ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22), ("BH", 22),
    ("BI", 27), ("BR", 29), ("BY", 28), ("CH", 21), ("CR", 22), ("CY", 28), ("CZ", 24), ("DE", 22), ("DJ", 27),
    ("DK", 18), ("DO", 28), ("EE", 20), ("EG", 29), ("ES", 24), ("FI", 18), ("FK", 18), ("FO", 18), ("FR", 27),
    ("GB", 22), ("GE", 22), ("GI", 23), ("GL", 18), ("GR", 27), ("GT", 28), ("HN", 28), ("HR", 21), ("HU", 28),
    ("IE", 22), ("IL", 23), ("IQ", 23), ("IS", 26), ("IT", 27), ("JO", 30), ("KW", 30), ("KZ", 20), ("LB", 28),
    ("LC", 32), ("LI", 21), ("LT", 20), ("LU", 20), ("LV", 21), ("LY", 25), ("MC", 27), ("MD", 24), ("ME", 22),
    ("MK", 19), ("MN", 20), ("MR", 27), ("MT", 31), ("MU", 30), ("NI", 28), ("NL", 18), ("NO", 15), ("OM", 23),
    ("PK", 24), ("PL", 28), ("PS", 29), ("PT", 25), ("QA", 29), ("RO", 24), ("RS", 22), ("RU", 33), ("SA", 24),
    ("SC", 31), ("SD", 18), ("SE", 24), ("SI", 19), ("SK", 24), ("SM", 27), ("SO", 23), ("ST", 25), ("SV", 28),
    ("TL", 23), ("TN", 24), ("TR", 26), ("UA", 29), ("VA", 22), ("VG", 24), ("XK", 20), ("YE", 30),
];

#[derive(Debug)]
pub(super) struct Accounts(Regex);

impl Accounts {
    pub fn new() -> Result<Self, PatternError> {
        pattern(r"(?i)[A-Z]{2}[0-9]{2}(?:[ \u{a0}-]?[A-Z0-9]){11,30}").map(Self)
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut from = 0;
        // A candidate may begin within another that is none.
        while let Some(candidate) = self.0.find_at(text, from) {
            from = candidate.start() + 1;
            while !text.is_char_boundary(from) {
                from += 1;
            }
            if let Some(range) = account(text, candidate.range()) {
                from = range.end;
                found.push(range);
            }
        }
        found
    }
}

/// The account number at the beginning of a candidate.
fn account(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    if around(text, &range).0.is_some_and(char::is_alphanumeric) {
        return None;
    }
    let candidate = text.get(range.clone())?;
    let country = candidate.get(..2)?.to_ascii_uppercase();
    let &(_, len) = LENGTHS.iter().find(|(name, _)| *name == country)?;
    let mut number = Vec::with_capacity(len);
    let mut end = range.start;
    for (at, character) in candidate.char_indices() {
        if character.is_ascii_alphanumeric() {
            number.push(character.to_ascii_uppercase());
            end = range.start + at + 1;
        }
        if number.len() == len {
            break;
        }
    }
    let whole = range.start..end;
    let ends = !around(text, &whole).1.is_some_and(char::is_alphanumeric);
    (number.len() == len && ends && remainder(&number) == 1).then_some(whole)
}

/// The number, its first four characters last and letters as two digits, modulo 97 (ISO 7064).
fn remainder(number: &[char]) -> u32 {
    let (first, rest) = number.split_at(4.min(number.len()));
    rest.iter().chain(first).filter_map(|character| character.to_digit(36)).fold(0, |sum, digit| {
        let shifted = if digit < 10 { sum * 10 } else { sum * 100 };
        (shifted + digit) % 97
    })
}
