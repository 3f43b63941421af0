//! Telephone numbers: international ones (ITU-T E.164, E.123), and the national forms that can be told from other
//! numbers.

use super::{PatternError, around, context, digits, pattern};
use regex::Regex;
use std::ops::Range;

/// Country codes by their length (ITU-T E.164, annex), as ranges of codes that are assigned.
const ONE: [u32; 2] = [1, 7];
const TWO: &[u32] = &[
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62,
    63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];
/// Decades of three-digit codes.
const THREE: &[u32] = &[21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99];

/// Words that say that a number is one to call, in languages whose numbers are often written without a sign of it.
const WORDS: &[&str] = &[
    "phone",
    "tel:",
    "tel.",
    "tel ",
    "telef",
    "call",
    "mobile",
    "cell ",
    "cell:",
    "cellphone",
    "fax",
    "dial",
    "whatsapp",
    "sms",
    "text me",
    "contact",
    "hotline",
    "ring ",
    "telefon",
    "handy",
    "mobil",
    "rufnummer",
    "anruf",
    "ruf ",
    "durchwahl",
    "téléphone",
    "telephone",
    "portable",
    "appel",
    "joindre",
    "numéro",
    "teléfono",
    "telefono",
    "móvil",
    "movil",
    "llam",
    "celular",
    "telefone",
    "telemóvel",
    "ligue",
    "cellulare",
    "chiam",
    "telefoon",
    "bel ",
    "bellen",
    "nummer",
    "komórk",
    "dzwo",
    "zadzwo",
    "puhelin",
    "тел",
    "звон",
    "電話",
    "电话",
    "手机",
    "連絡",
    "전화",
    "फोन",
    "number is",
    "reach ",
    "☎",
    "📞",
    "📱",
];
/// Words for numbers that nobody calls.
const OTHERWISE: &[&str] = &[
    "order",
    "invoice",
    "id",
    "ref",
    "reference",
    "ticket",
    "serial",
    "sku",
    "isbn",
    "ean",
    "article",
    "item",
    "case",
    "key",
    "hash",
    "code",
    "pin",
    "bestellung",
    "rechnung",
    "auftrag",
    "artikel",
    "kundennummer",
    "commande",
    "facture",
    "pedido",
    "factura",
    "ordine",
    "fattura",
    "zamówienie",
    "zip",
    "plz",
];
/// What ends in a dot within a sentence.
const ABBREVIATIONS: &[&str] = &["tel", "tél", "tlf", "telef", "ph", "mob", "fon", "nr", "no", "num", "handy", "cell"];
/// How far before a number such a word may stand, in bytes.
const NEAR: usize = 40;

#[derive(Debug)]
pub(super) struct Phones {
    candidate: Regex,
}

/// What kind of numbers a candidate may be.
enum Shape {
    /// `+49 …`, `0049 …`.
    International,
    /// `(212) 555-0123`, `030 1234567`: told by its grouping.
    National,
    /// A trunk prefix and digits without groups, as an order's number may be.
    Ungrouped,
    /// Eleven digits from 13 on: mobile numbers of China, where the text is Chinese.
    Chinese,
    /// Digits that only a word beside them tells.
    Bare,
    /// Something else.
    None,
}

impl Phones {
    pub fn new() -> Result<Self, PatternError> {
        let sign = r"[\u{a0}\u{2009}\u{202f} ()./\u{2010}-\u{2013}-]";
        Ok(Self { candidate: pattern(&format!(r"(?:[+＋]\s?\(?|\(\+?)?[0-9](?:{sign}{{0,3}}[0-9]){{6,17}}"))? })
    }

    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for candidate in self.candidate.find_iter(text) {
            let range = without_open_bracket(candidate.as_str(), candidate.range());
            if !stands_alone(text, &range) {
                continue;
            }
            let is_number = match shape(text.get(range.clone()).unwrap_or_default()) {
                Shape::International | Shape::National => true,
                Shape::Ungrouped => !is_named_otherwise(text, range.start),
                Shape::Chinese => is_called(text, range.start) || is_among_han(text, &range),
                Shape::Bare => is_called(text, range.start),
                Shape::None => false,
            };
            if is_number {
                found.push(with_extension(text, range));
            }
        }
        found
    }
}

/// Whether the word before it says that a number is something else.
fn is_named_otherwise(text: &str, start: usize) -> bool {
    let before = context(text, start, NEAR);
    let word = before.split(|character: char| !character.is_alphanumeric()).rfind(|word| !word.is_empty());
    word.is_some_and(|word| OTHERWISE.contains(&word))
}

/// Whether a word before it, in the same sentence, says that a number is one to call.
fn is_called(text: &str, start: usize) -> bool {
    let before = context(text, start, NEAR);
    let is_abbreviation =
        |at: usize| ABBREVIATIONS.iter().any(|word| before.get(..at).unwrap_or_default().ends_with(word));
    let mut ends = before.match_indices(['.', '!', '?', '。', '\n']).rev();
    let begins = ends.find(|&(at, _)| !is_abbreviation(at)).map_or(0, |(at, end)| at + end.len());
    let sentence = before.get(begins..).unwrap_or_default();
    WORDS.iter().any(|word| begins_a_word(sentence, word))
}

/// Whether a word of the text begins like that: `tel` is in `tel:` and `telefon`, not in `hotel`. Scripts without
/// spaces have no words that could be told apart.
fn begins_a_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        !word.is_ascii() || !before.is_some_and(char::is_alphanumeric)
    })
}

/// Whether Chinese stands close by.
fn is_among_han(text: &str, range: &Range<usize>) -> bool {
    let near = |text: &str| text.chars().any(|character| ('\u{4e00}'..='\u{9fff}').contains(&character));
    let mut end = text.len().min(range.end + NEAR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    near(&context(text, range.start, NEAR)) || near(text.get(range.end..end).unwrap_or_default())
}

/// A bracket that is closed behind the number belongs to the sentence.
fn without_open_bracket(candidate: &str, range: Range<usize>) -> Range<usize> {
    let open = candidate.starts_with('(') && !candidate.contains(')');
    range.start + usize::from(open)..range.end
}

/// Not part of a word, a longer number, a date, a fraction or an identifier.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let (before, _) = around(text, range);
    let begins = !before.is_some_and(|side| {
        side.is_alphanumeric() || matches!(side, '_' | '.' | '/' | '#' | '=' | '-' | '$' | '€' | '£' | '+' | '@')
    }) || before.is_some_and(|side| side.is_alphabetic() && !side.is_ascii());
    let rest = text.get(range.end..).unwrap_or_default();
    let mut next = rest.chars();
    let ends = match (next.next(), next.next()) {
        (Some(side), _) if side.is_ascii_digit() || matches!(side, '_' | '%' | '€' | '@') => false,
        (Some(side), _) if side.is_ascii_alphabetic() => has_extension(rest),
        (Some('.' | ',' | ':' | '-' | '/'), Some(then)) => !then.is_ascii_digit(),
        _ => true,
    };
    begins && ends
}

fn has_extension(rest: &str) -> bool {
    extension(rest) > 0
}

/// Bytes of an extension such as `x123` or ` ext. 5`.
fn extension(rest: &str) -> usize {
    let trimmed = rest.trim_start_matches(' ');
    let lower = trimmed.get(..trimmed.len().min(6)).unwrap_or_default().to_ascii_lowercase();
    let Some(word) = ["ext.", "ext", "x"].iter().find(|word| lower.starts_with(*word)) else { return 0 };
    let after = trimmed.get(word.len()..).unwrap_or_default();
    let number = after.trim_start_matches(' ');
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    match digits {
        1..=6 => rest.len() - number.len() + digits,
        _ => 0,
    }
}

fn with_extension(text: &str, range: Range<usize>) -> Range<usize> {
    let more = extension(text.get(range.end..).unwrap_or_default());
    range.start..range.end + more
}

fn shape(candidate: &str) -> Shape {
    let number = digits(candidate);
    let groups: Vec<&str> =
        candidate.split(|character: char| !character.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    if is_other(candidate, &groups) {
        return Shape::None;
    }
    let digit = |index: usize| number.get(index).copied().unwrap_or_default();
    if candidate.trim_start_matches('(').starts_with(['+', '＋']) {
        let valid = (8..=15).contains(&number.len()) && is_assigned(&number);
        return if valid { Shape::International } else { Shape::None };
    }
    if number.starts_with(&[0, 0]) {
        let rest = number.get(2..).unwrap_or_default();
        let valid = (9..=15).contains(&rest.len()) && is_assigned(rest) && (groups.len() > 1 || number.len() >= 12);
        return if valid { Shape::International } else { Shape::None };
    }
    let area = candidate.starts_with('(');
    match (number.len(), groups.len()) {
        // North America: neither area nor exchange begins with 0 or 1.
        (10, 2..=4) if is_north_american(&groups) && digit(0) >= 2 && digit(3) >= 2 => Shape::National,
        (11, 2..=5) if digit(0) == 1 && digit(1) >= 2 && digit(4) >= 2 && is_north_american(&groups) => Shape::National,
        // An area in brackets.
        (8..=12, 2..=6) if area => Shape::National,
        // A trunk prefix and groups.
        (9..=12, 2..=6) if digit(0) == 0 && digit(1) != 0 && groups.iter().all(|group| group.len() >= 2) => {
            Shape::National
        }
        // The same without groups, unless it is an article number.
        (10 | 11, 1) if digit(0) == 0 && digit(1) != 0 && !is_isbn(&number) => Shape::Ungrouped,
        (11, 1) if digit(0) == 1 && (3..=9).contains(&digit(1)) => Shape::Chinese,
        (7..=13, _) => Shape::Bare,
        _ => Shape::None,
    }
}

/// Ten digits with the check digit of ISO 2108.
fn is_isbn(number: &[u8]) -> bool {
    let sum: u32 = number.iter().rev().zip(1u32..).map(|(&digit, weight)| weight * u32::from(digit)).sum();
    number.len() == 10 && sum.is_multiple_of(11)
}

/// Three, three and four digits, perhaps after a 1; or as much of it as is set apart.
fn is_north_american(groups: &[&str]) -> bool {
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    matches!(lengths.as_slice(), [3, 3, 4] | [1, 3, 3, 4] | [3, 7] | [1, 10] | [6, 4] | [1, 3, 7])
}

/// Whether a country code is at the beginning.
fn is_assigned(number: &[u8]) -> bool {
    let first = |count: usize| number.iter().take(count).fold(0u32, |value, &digit| value * 10 + u32::from(digit));
    ONE.contains(&first(1)) || TWO.contains(&first(2)) || THREE.contains(&first(2))
}

/// Dates, decimals, addresses, ranges of years.
fn is_other(candidate: &str, groups: &[&str]) -> bool {
    let number = |index: usize| groups.get(index).and_then(|group| group.parse::<u32>().ok()).unwrap_or(u32::MAX);
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let year = |value: u32| (1000..2200).contains(&value);
    let date = match lengths.as_slice() {
        [4, 2, 2, ..] => year(number(0)) && number(1) <= 12 && number(2) <= 31,
        [1 | 2, 1 | 2, 4, ..] => year(number(2)) && number(0) <= 31 && number(1) <= 31,
        [4, 4] => year(number(0)) && year(number(1)),
        _ => false,
    };
    let dots = candidate.matches('.').count();
    // Four numbers set apart by dots, or two: an address or a fraction.
    let address = dots == 3 && groups.len() == 4 && groups.iter().all(|group| group.len() <= 3);
    let fraction = dots == 1 && groups.len() == 2;
    // Brackets that do not belong together.
    let brackets =
        candidate.matches(')').count() > candidate.matches('(').count() || candidate.matches('(').count() > 1;
    // ISBN, and other numbers that end in a single check digit.
    let check_digit = groups.len() > 2 && lengths.last() == Some(&1);
    date || check_digit
        || address
        || fraction
        || brackets
        || candidate.contains("--")
        || candidate.contains("//")
        || candidate.contains("..")
}
