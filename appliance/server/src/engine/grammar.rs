//! Answers that follow a grammar: JSON, a JSON schema, or the call of a tool.

use crate::codec::Codec;
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Room for indentation, but no endless white space, which models fall into.
const SPACES: &str = r"[ \n\t]{0,16}";

/// What an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Any JSON object.
    JsonObject,
    /// JSON by a schema.
    JsonSchema(Value),
    /// By a grammar in llguidance's dialect of Lark.
    Lark(String),
}

/// Knows a model's tokens as bytes, and makes grammars for answers.
pub struct Grammars {
    factory: ParserFactory,
    vocabulary: usize,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Grammars({} tokens)", self.vocabulary)
    }
}

/// Where an answer stands in its grammar.
pub struct Grammar {
    matcher: Matcher,
}

impl Grammars {
    /// For a tokenizer and the tokens that end an answer.
    ///
    /// # Errors
    /// Where the tokenizer's tokens are not known as bytes.
    pub fn new(codec: &Codec, ends: &[u32]) -> Result<Self, String> {
        let (words, vocabulary) = token_bytes(codec)?;
        let end = *ends.first().ok_or("the model has no token that ends a text")?;
        let size = u32::try_from(vocabulary).map_err(|error| error.to_string())?;
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
        let trie = if ends.len() > 1 { trie.with_eos_tokens(ends) } else { trie };
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // No slices: they cost start-up time for each model, and pay only with large vocabularies and long strings.
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[])
            .map_err(|error| error.to_string())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, vocabulary })
    }

    /// Prepares a grammar.
    ///
    /// # Errors
    /// What is wrong with the schema, or which part of it is not supported.
    pub fn prepare(&self, shape: &Shape) -> Result<Grammar, String> {
        let grammar = match shape {
            Shape::JsonObject => TopLevelGrammar::from_json_schema(with_spaces(json!({"type": "object"}), SPACES)),
            Shape::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_spaces(schema.clone(), SPACES)),
            Shape::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(error),
            None => Ok(Grammar { matcher }),
        }
    }
}

impl Grammar {
    /// The same from its beginning for another answer, which shares nothing with this one.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { matcher: self.matcher.deep_clone() }
    }

    /// The tokens that may come next.
    ///
    /// # Errors
    /// Where the grammar became too large to follow.
    pub fn allowed(&mut self) -> Result<SimpleVob, String> {
        self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())
    }

    /// Takes the chosen token; whether the answer is whole and nothing can follow.
    ///
    /// # Errors
    /// Where the token is none of those that may come.
    pub fn take(&mut self, token: u32) -> Result<bool, String> {
        self.matcher.consume_token(token).map_err(|error| error.to_string())?;
        Ok(self.matcher.is_stopped())
    }
}

/// Says what may stand between the parts of JSON by a schema.
pub fn with_spaces(mut schema: Value, pattern: &str) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": pattern}));
    }
    schema
}

/// Tokens as bytes; special ones are marked.
fn token_bytes(codec: &Codec) -> Result<(Vec<Vec<u8>>, usize), String> {
    let tokenizer = codec.tokenizer();
    let kind = serde_json::to_value(tokenizer.get_decoder()).map_err(|error| error.to_string())?;
    let byte_level = names_type(&kind, "ByteLevel");
    let metaspace = names_type(&kind, "ByteFallback") || names_type(&kind, "Metaspace") || names_type(&kind, "Replace");
    if !byte_level && !metaspace {
        return Err("answers by a grammar need a byte-level or SentencePiece tokenizer".to_owned());
    }
    let bytes_of = byte_alphabet();
    let vocabulary = tokenizer.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |last| *last as usize + 1);
    let mut words = vec![Vec::new(); size];
    let added = tokenizer.get_added_tokens_decoder();
    for (name, token) in vocabulary {
        let word = match added.get(&token) {
            Some(added) if added.special => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
            Some(_) => name.into_bytes(),
            None if byte_level => match name.chars().map(|letter| bytes_of.get(&letter).copied()).collect() {
                Some(bytes) => bytes,
                None => continue,
            },
            None => match name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')) {
                Some(hex) => u8::from_str_radix(hex, 16).map_or_else(|_| name.clone().into_bytes(), |byte| vec![byte]),
                None => name.replace('▁', " ").into_bytes(),
            },
        };
        if let Some(place) = words.get_mut(token as usize) {
            *place = word;
        }
    }
    Ok((words, size))
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
