//! International bank account numbers (ISO 13616), with their check digits.

use super::{PatternError, around, pattern};
use regex::Regex;
use std::ops::Range;

/// Countries and the lengths of their numbers (SWIFT's IBAN registry, release 99).
const LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 \
    EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 \
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 \
    NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 \
    SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

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
    let len: usize = LENGTHS.split(' ').find_map(|entry| entry.strip_prefix(&country))?.parse().ok()?;
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
