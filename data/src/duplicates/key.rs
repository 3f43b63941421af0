//! The digests by which exact duplicates are told and examples are split.

use crate::{
    Example,
    example::{Content, Part},
};
use gap_format::Digest;
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization;

/// The digest of an example's normalised texts, each with its field or role and its length.
pub(crate) fn key(contents: &[Content<'_>]) -> Digest {
    let mut hasher = Sha256::new_with_prefix(b"gap-data example 1\0");
    let mut buffer = String::new();
    contents.iter().for_each(|content| update(&mut hasher, content, &mut buffer));
    Digest::from(hasher)
}

/// The digest by which an example is split: that of what it answers for a preference, whose answers to one prompt
/// belong together; else its own.
pub(crate) fn split_key(example: &Example, contents: &[Content<'_>]) -> Digest {
    let Example::Preference { .. } = example else { return key(contents) };
    let mut hasher = Sha256::new_with_prefix(b"gap-data prompt 1\0");
    let mut buffer = String::new();
    let prompt = contents.iter().filter(|content| content.part == Part::Prompt);
    prompt.for_each(|content| update(&mut hasher, content, &mut buffer));
    Digest::from(hasher)
}

fn update(hasher: &mut Sha256, content: &Content<'_>, buffer: &mut String) {
    let part = match content.part {
        Part::Prompt => b'p',
        Part::Chosen => b'c',
        Part::Rejected => b'r',
    };
    buffer.clear();
    normalise(&content.text, buffer);
    hasher.update([part, content.tag]);
    hasher.update((buffer.len() as u64).to_le_bytes());
    hasher.update(buffer.as_bytes());
}

/// NFC, white space as single spaces, none at the ends.
fn normalise(text: &str, into: &mut String) {
    let words = text.split_whitespace();
    for (index, word) in words.enumerate() {
        if index > 0 {
            into.push(' ');
        }
        match word.is_ascii() {
            true => into.push_str(word),
            false => into.extend(word.nfc()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instruction: &str, input: &str) -> Digest {
        let example = Example::Instruction {
            system: None,
            instruction: instruction.into(),
            input: input.into(),
            output: "o".into(),
        };
        key(&example.contents())
    }

    #[test]
    fn spacing_and_composition_do_not_count_and_all_else_does() {
        assert_eq!(of(" a\t\nb ", ""), of("a b", " "));
        assert_eq!(of("caf\u{e9}", ""), of("cafe\u{301}", ""));
        assert_ne!(of("a b", ""), of("A b", ""));
        assert_ne!(of("a", "b"), of("a b", ""));
        assert_ne!(of("", "a"), of("a", ""));
    }
}
