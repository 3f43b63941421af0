//! Words of a text as hashes: case, composition and punctuation do not count.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit over all others (the finaliser of SplitMix64).
pub(super) const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Calls `word` with the hash of each word: a run of letters, digits and marks, or one character of a script that sets
/// no spaces between words.
pub(super) fn words(text: &str, word: &mut dyn FnMut(u64)) {
    let mut open = Open(0);
    if text.is_ascii() {
        for byte in text.bytes() {
            match byte.is_ascii_alphanumeric() {
                true => open.add(u32::from(byte.to_ascii_lowercase())),
                false => open.close(word),
            }
        }
    } else {
        for character in text.nfkc().flat_map(char::to_lowercase) {
            if is_word_by_itself(character) {
                open.close(word);
                open.add(u32::from(character));
                open.close(word);
            } else if character.is_alphanumeric() || is_combining_mark(character) {
                open.add(u32::from(character));
            } else {
                open.close(word);
            }
        }
    }
    open.close(word);
}

/// The word that is being read; zero is none.
struct Open(u64);

impl Open {
    fn add(&mut self, character: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(character + 1)).wrapping_mul(MULTIPLIER);
    }

    fn close(&mut self, word: &mut dyn FnMut(u64)) {
        if self.0 != 0 {
            word(self.0);
            self.0 = 0;
        }
    }
}

/// Han, kana, and the scripts of South-East Asia.
const fn is_word_by_itself(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<u64> {
        let mut all = Vec::new();
        words(text, &mut |word| all.push(word));
        all
    }

    #[test]
    fn case_punctuation_and_composition_do_not_count() {
        assert_eq!(of("Hello, World!"), of("hello world"));
        assert_eq!(of("Stra\u{df}e caf\u{e9}"), of("STRA\u{df}E, cafe\u{301}"));
        // The same word by both ways of reading.
        assert_eq!(of("x ü")[0], of("x")[0]);
        assert_eq!(of("ab").len(), 1);
        assert_ne!(of("ab"), of("ba"));
        assert!(of(" …!? ").is_empty());
    }

    #[test]
    fn scripts_without_spaces_have_words() {
        assert_eq!(of("机器学习").len(), 4);
        assert_eq!(of("日本語 text").len(), 4);
        assert_eq!(of("한국어 문장").len(), 2);
    }
}
