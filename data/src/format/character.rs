//! Characters that no training text should hold.

use crate::problem::{Fault, Kind};

/// The most faults that one text gives: of each kind one.
pub(super) fn check(text: &str, field: &str, faults: &mut Vec<Fault>) {
    // Nearly all text is plain, and this is the fast way to see it.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | b'\r')) {
        return;
    }
    let mut seen = [None; 3];
    let mut before = '\0';
    for character in text.chars() {
        let slot = match character {
            '\n' | '\t' | '\r' => None,
            '\0'..='\x1f' | '\x7f' => Some(0),
            _ if is_hidden(character) => Some(1),
            _ if is_misdecoded(before, character) => Some(2),
            _ => None,
        };
        if let Some(first) = slot.and_then(|slot| seen.get_mut(slot)) {
            first.get_or_insert(character);
        }
        before = character;
    }
    let [control, hidden, misdecoded] = seen;
    let code = |character: char| format!("U+{:04X}", u32::from(character));
    if let Some(character) = control {
        faults.push(Fault::of(Kind::ControlCharacter, field, format!("the control character {}", code(character))));
    }
    if let Some(character) = hidden {
        faults.push(Fault::of(Kind::HiddenCharacter, field, format!("the invisible character {}", code(character))));
    }
    if misdecoded.is_some() {
        faults.push(Fault::of(Kind::Misdecoded, field, "characters that come from decoding with the wrong encoding"));
    }
}

/// Zero widths, byte order marks, changes of direction and tags: text can be hidden with them, or shown in another
/// order than it is read. The joiners that scripts and emoji need are not among them.
const fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The replacement character, C1 controls, and UTF-8 that was read as Latin-1 or Windows-1252.
const fn is_misdecoded(before: char, character: char) -> bool {
    matches!((before, character), (_, '\u{fffd}' | '\u{80}'..='\u{9f}') | ('Ã' | 'Â', '\u{a0}'..='\u{bf}') | ('â', '€'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut faults = Vec::new();
        check(text, "text", &mut faults);
        faults.into_iter().map(|fault| fault.kind).collect()
    }

    #[test]
    fn ordinary_text_of_any_script_is_fine() {
        for text in
            ["a\tb\r\nc", "Grüße, façade, São João, ÂME", "नमस्ते می‌خواهم", "👩‍👩‍👧 🏳️‍🌈", "中文，日本語、한국어", "“q” – …"]
        {
            assert_eq!(kinds(text), [], "{text}");
        }
    }

    #[test]
    fn what_is_hidden_broken_or_misdecoded_is_told_once() {
        assert_eq!(kinds("a\0b\x1b[0m"), [Kind::ControlCharacter]);
        assert_eq!(kinds("abc\u{202e}fed\u{200b}"), [Kind::HiddenCharacter]);
        assert_eq!(kinds("ignore\u{e0041}"), [Kind::HiddenCharacter]);
        for text in ["GrÃ¼Ãe", "donâ€™t", "caf\u{fffd}", "Â©", "a\u{92}s"] {
            assert_eq!(kinds(text), [Kind::Misdecoded], "{text}");
        }
        assert_eq!(kinds("\x01\u{feff}\u{fffd}"), [Kind::ControlCharacter, Kind::HiddenCharacter, Kind::Misdecoded]);
    }
}
