//! Text to tokens and back.

use gap_lm::inference::{LoadError, read_bounded};
use std::path::Path;
use tokenizers::{Decoder as _, DecoderWrapper, Tokenizer};

/// Longest `tokenizer.json`, in bytes.
const MAX_TOKENIZER: u64 = 64 << 20;

/// A model's tokenizer.
#[derive(Debug)]
pub struct Codec {
    tokenizer: Tokenizer,
    /// Number of its tokens.
    size: usize,
    /// Bytes of the longest of them.
    longest: usize,
}

impl Codec {
    /// Reads `tokenizer.json` of a model's directory. `vocabulary` is the number of rows that the model has for tokens.
    ///
    /// # Errors
    /// Where it cannot be read, or has tokens that the model has no row for.
    pub fn read(directory: &Path, vocabulary: usize) -> Result<Self, LoadError> {
        let path = directory.join("tokenizer.json");
        let bytes = read_bounded(&path, MAX_TOKENIZER)?;
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| LoadError::Damaged {
            path: path.clone(),
            reason: format!("it is no tokenizer of the tokenizers library: {error}"),
        })?;
        Self::new(tokenizer, vocabulary, &path)
    }

    /// From a tokenizer that came from `path`.
    ///
    /// # Errors
    /// Where it has tokens that the model has no row for.
    pub fn new(mut tokenizer: Tokenizer, vocabulary: usize, path: &Path) -> Result<Self, LoadError> {
        let tokens = tokenizer.get_vocab(true);
        let largest = tokens.values().copied().max().unwrap_or_default();
        // What names of tokens write a byte with may take two or three, but never less than one.
        let longest = tokens.keys().map(String::len).max().unwrap_or_default();
        if largest as usize >= vocabulary {
            return Err(LoadError::Damaged {
                path: path.to_path_buf(),
                reason: format!(
                    "it has a token {largest}, but the model has {vocabulary} rows: tokenizer and model are not of one \
                     piece"
                ),
            });
        }
        // What a checkpoint says about training must not cut or fill up what is served.
        let reset = tokenizer.with_truncation(None).map(|tokenizer| tokenizer.with_padding(None));
        reset.map_err(|error| LoadError::Damaged { path: path.to_path_buf(), reason: error.to_string() })?;
        Ok(Self { tokenizer, size: largest as usize + 1, longest })
    }

    /// Number of its tokens: one more than the largest.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The longest text that so many tokens can hold, in bytes.
    pub const fn longest_text(&self, tokens: usize) -> usize {
        self.longest.saturating_mul(tokens)
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens and types of a text for an encoder.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn encode_typed(&self, text: &str) -> Result<gap_lm::inference::EncodedText, String> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| error.to_string())?;
        Ok(gap_lm::inference::EncodedText {
            tokens: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }

    /// Text of tokens, without special ones.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.tokenizer.decode(tokens, true).map_err(|error| error.to_string())
    }

    /// Text of one token by itself, special ones by their names.
    pub fn piece(&self, token: u32) -> String {
        let name = self.tokenizer.id_to_token(token).unwrap_or_default();
        let single = |decoder: &DecoderWrapper| decoder.decode(vec![name.clone()]).ok();
        self.tokenizer.get_decoder().and_then(single).filter(|text| !text.is_empty()).unwrap_or(name)
    }

    /// The token of that exact name.
    pub fn token(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The tokenizer itself.
    pub const fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// Text that grows token by token. A token may be part of a character; text comes out as soon as it is whole.
#[derive(Debug, Default)]
pub struct TextStream {
    tokens: Vec<u32>,
    /// Where the tokens begin that are decoded together with new ones, so that spaces come out right.
    context: usize,
    /// Where tokens begin whose text is not out yet.
    pending: usize,
}

impl TextStream {
    /// Takes a token; the text that is whole by it. A special one has text only if it is `shown`.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn push(&mut self, codec: &Codec, token: u32, shown: bool) -> Result<String, String> {
        if shown {
            let rest = self.finish(codec)?;
            self.context = self.pending;
            return Ok(rest + &codec.piece(token));
        }
        self.tokens.push(token);
        let text = self.grown(codec)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        if !text.is_empty() {
            self.context = self.pending;
            self.pending = self.tokens.len();
        }
        Ok(text)
    }

    /// What is left at the end, even if it is no whole character.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn finish(&mut self, codec: &Codec) -> Result<String, String> {
        let text = self.grown(codec)?;
        self.pending = self.tokens.len();
        Ok(text)
    }

    /// What the pending tokens add to the text of those before them.
    fn grown(&self, codec: &Codec) -> Result<String, String> {
        let before = codec.decode(self.tokens.get(self.context..self.pending).unwrap_or_default())?;
        let with = codec.decode(self.tokens.get(self.context..).unwrap_or_default())?;
        Ok(with.get(before.len()..).unwrap_or_default().to_owned())
    }
}
