//! Answers that follow a grammar: JSON, a JSON schema, or the call of a tool.

use crate::codec::Codec;
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};
use std::sync::Arc;

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
        let words = marked(codec)?;
        let vocabulary = words.len();
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
fn marked(codec: &Codec) -> Result<Vec<Vec<u8>>, String> {
    let words = codec.token_bytes().ok_or("answers by a grammar need a byte-level or SentencePiece tokenizer")?;
    let mark = |(token, word): (u32, &Vec<u8>)| {
        if codec.is_special(token) {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], word.as_slice()].concat()
        } else {
            word.clone()
        }
    };
    Ok((0..).zip(words.words()).map(mark).collect())
}
