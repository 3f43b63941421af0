//! Tokens as the bytes that they add to a text.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::Tokenizer;

/// The bytes of each token of a tokenizer. A token may be part of a character.
#[derive(Debug)]
pub struct TokenBytes {
    words: Vec<Vec<u8>>,
}

impl TokenBytes {
    /// Of a byte-level or SentencePiece tokenizer, whose tokens' names say their bytes. None for another.
    pub fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let kind = serde_json::to_value(tokenizer.get_decoder()).ok()?;
        let byte_level = names_type(&kind, "ByteLevel");
        let pieces = ["ByteFallback", "Metaspace", "Replace"].into_iter().any(|name| names_type(&kind, name));
        if !byte_level && !pieces {
            return None;
        }
        let alphabet = byte_alphabet();
        let vocabulary = tokenizer.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |last| *last as usize + 1);
        let mut words = vec![Vec::new(); size];
        let added: BTreeSet<u32> = tokenizer.get_added_tokens_decoder().keys().copied().collect();
        for (name, token) in vocabulary {
            let word = if added.contains(&token) {
                name.into_bytes()
            } else if byte_level {
                match name.chars().map(|letter| alphabet.get(&letter).copied()).collect() {
                    Some(bytes) => bytes,
                    None => continue,
                }
            } else {
                let byte = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match byte.and_then(|byte| u8::from_str_radix(byte, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => name.replace('▁', " ").into_bytes(),
                }
            };
            if let Some(place) = words.get_mut(token as usize) {
                *place = word;
            }
        }
        Some(Self { words })
    }

    /// All tokens by their numbers; one that the tokenizer has not, or that is no text, has no bytes.
    pub fn words(&self) -> &[Vec<u8>] {
        &self.words
    }

    /// The bytes of a token; special ones have their names.
    pub fn get(&self, token: u32) -> &[u8] {
        self.words.get(token as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many tokens at the end are the beginning of a character and nothing else.
    pub fn unfinished(&self, tokens: &[u32]) -> usize {
        // A character has at most four bytes.
        let begins = |count: &usize| {
            let last = tokens.len().checked_sub(*count).and_then(|at| tokens.get(at..)).unwrap_or_default();
            let bytes: Vec<u8> = last.iter().flat_map(|token| self.get(*token)).copied().collect();
            !last.is_empty()
                && std::str::from_utf8(&bytes)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        };
        (1..=3).find(begins).unwrap_or_default()
    }
}

fn names_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.get("type").and_then(Value::as_str) == Some(name) || map.values().any(|value| names_type(value, name))
        }
        Value::Array(list) => list.iter().any(|value| names_type(value, name)),
        _ => false,
    }
}

/// The letters that byte-level tokenizers write bytes with.
fn byte_alphabet() -> BTreeMap<char, u8> {
    let mut next = 0x100;
    let letter = |byte: u8| {
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            return (char::from(byte), byte);
        }
        let letter = char::from_u32(next).unwrap_or_default();
        next += 1;
        (letter, byte)
    };
    (0..=255).map(letter).collect()
}
