//! Payment card numbers (ISO/IEC 7812): issuer, length and check digit.

use super::{PatternError, around, context, digits, pattern};
use regex::Regex;
use std::ops::Range;

#[derive(Debug)]
pub(super) struct Cards(Regex);

impl Cards {
    pub fn new() -> Result<Self, PatternError> {
        pattern(r"[0-9](?:[ \u{a0}-]?[0-9]){11,18}").map(Self)
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        self.0.find_iter(text).map(|found| found.range()).filter(|range| is_card(text, range)).collect()
    }
}

fn is_card(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = around(text, range);
    // Part of a longer number, a decimal fraction or an identifier.
    let joined =
        |side: Option<char>| side.is_some_and(|side| side.is_alphanumeric() || matches!(side, '_' | '.' | '-'));
    let fraction = after == Some('.')
        && text.get(range.end + 1..).is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
    if joined(before) || after.is_some_and(|side| side.is_alphanumeric() || matches!(side, '_' | '-')) || fraction {
        return false;
    }
    let candidate = text.get(range.clone()).unwrap_or_default();
    let number = digits(candidate);
    let called = || {
        let before = context(text, range.start, NEAR);
        WORDS.iter().any(|word| before.contains(word))
    };
    let issued = is_issued(&number) || (is_rare(&number) && called());
    issued && luhn(&number) && number.windows(2).any(|pair| pair.first() != pair.last())
}

/// Words that say that a number is a card's, and how far before it they may stand, in bytes.
const WORDS: [&str; 10] =
    ["card", "karte", "carte", "tarjeta", "cartão", "carta", "visa", "maestro", "credit", "カード"];
const NEAR: usize = 32;

/// Forms that are hardly given out any more and look like article numbers.
fn is_rare(number: &[u8]) -> bool {
    matches!((number, number.len()), ([4, ..], 13) | ([5, 0 | 6..=8, ..] | [6, ..], 12 | 17 | 18))
}

/// Whether an issuer gives out numbers that begin like that and are that long.
fn is_issued(number: &[u8]) -> bool {
    let prefix = number.iter().take(4).fold(0u32, |value, &digit| value * 10 + u32::from(digit));
    let (one, two, three) = (prefix / 1000, prefix / 100, prefix / 10);
    match number.len() {
        // Visa; Mastercard; Discover; JCB; UnionPay; Mir; RuPay; Maestro.
        16 => {
            one == 4
                || matches!(two, 51..=55 | 60 | 62 | 65 | 81 | 82)
                || matches!(three, 644..=649)
                || matches!(prefix, 2221..=2720 | 3500..=3599 | 2200..=2204 | 5018 | 5020 | 5038 | 5893 | 6304)
                || matches!(two, 67 | 68)
        }
        // American Express; old JCB.
        15 => matches!(two, 34 | 37) || matches!(prefix, 1800 | 2131),
        // Diners.
        14 => matches!(two, 36 | 38 | 39) || matches!(three, 300..=305),
        // Visa and UnionPay.
        19 => one == 4 || two == 62 || matches!(two, 65 | 67),
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| match (index % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
