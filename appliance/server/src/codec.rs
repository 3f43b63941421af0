//! Text to tokens and back.

use crate::token_bytes::TokenBytes;
use gap_lm::inference::{LoadError, read_bounded};
use std::{collections::BTreeSet, path::Path, sync::OnceLock};
use tokenizers::{Decoder as _, DecoderWrapper, Tokenizer};

/// Longest `tokenizer.json`, in bytes.
const MAX_TOKENIZER: u64 = 64 << 20;

/// Tokens of a prompt that are decoded together with the first ones of its answer.
const TAIL: usize = 8;

/// A model's tokenizer.
#[derive(Debug)]
pub struct Codec {
    tokenizer: Tokenizer,
    /// Number of its tokens.
    size: usize,
    /// Bytes of the longest of them.
    longest: usize,
    /// Tokens that are no text.
    special: BTreeSet<u32>,
    /// Made when they are first needed.
    bytes: OnceLock<Option<TokenBytes>>,
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
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Ok(Self { tokenizer, size: largest as usize + 1, longest, special, bytes: OnceLock::new() })
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

    /// Bytes of one token by itself, which may be part of a character; special ones have their names.
    pub fn bytes(&self, token: u32) -> Vec<u8> {
        if let Some(bytes) = self.token_bytes().map(|bytes| bytes.get(token)).filter(|bytes| !bytes.is_empty()) {
            return bytes.to_vec();
        }
        let name = self.tokenizer.id_to_token(token).unwrap_or_default();
        let single = |decoder: &DecoderWrapper| decoder.decode(vec![name.clone()]).ok();
        self.tokenizer.get_decoder().and_then(single).filter(|text| !text.is_empty()).unwrap_or(name).into_bytes()
    }

    /// Bytes of all tokens, if their names say them.
    pub fn token_bytes(&self) -> Option<&TokenBytes> {
        self.bytes.get_or_init(|| TokenBytes::new(&self.tokenizer)).as_ref()
    }

    /// Whether a token is no text.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    /// Tokens without those at the end that only begin a character: what follows may make it whole.
    pub fn whole<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        let unfinished = self.token_bytes().map_or(0, |bytes| bytes.unfinished(tokens));
        tokens.get(..tokens.len().saturating_sub(unfinished)).unwrap_or_default()
    }

    /// The token of that exact name.
    pub fn token(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
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
    /// One that goes on with the text of a prompt: a space before its first word is kept, and a character that the prompt began
    /// comes out whole.
    pub fn after(codec: &Codec, prompt: &[u32]) -> Self {
        let tail = prompt.get(prompt.len().saturating_sub(TAIL)..).unwrap_or_default();
        // Bytes in a row are characters only together: without the beginning of the first one, none of them is.
        let goes_on = |token: &u32| codec.bytes(*token).first().is_some_and(|byte| (0x80..0xc0).contains(byte));
        let begin = tail.iter().position(|token| !goes_on(token)).unwrap_or(tail.len());
        let tokens = tail.get(begin..).unwrap_or_default();
        Self { tokens: tokens.to_vec(), context: 0, pending: codec.whole(tokens).len() }
    }

    /// Takes a token; the text that is whole by it. A special one has text only if it is `shown`.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn push(&mut self, codec: &Codec, token: u32, shown: bool) -> Result<String, String> {
        if shown {
            let rest = self.finish(codec)?;
            if rest.ends_with(char::REPLACEMENT_CHARACTER) {
                // What was no whole character is none with what follows.
                self.context = self.pending;
            }
            return Ok(rest + &String::from_utf8_lossy(&codec.bytes(token)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{recorded, sentence_piece};

    fn codec(json: &serde_json::Value) -> Codec {
        Codec::new(Tokenizer::from_bytes(json.to_string()).unwrap(), 384, Path::new("tokenizer.json")).unwrap()
    }

    fn grown(codec: &Codec, mut stream: TextStream, tokens: &[u32]) -> String {
        let text: String = tokens.iter().map(|token| stream.push(codec, *token, false).unwrap()).collect();
        text + &stream.finish(codec).unwrap()
    }

    #[test]
    fn a_text_that_is_gone_on_with_keeps_the_space_before_a_word() {
        let codec = codec(&sentence_piece());
        let prompt = codec.encode("Hello", true).unwrap();
        let world = codec.token("▁world").unwrap();
        assert_eq!(grown(&codec, TextStream::after(&codec, &prompt), &[world, world]), " world world");
        // An answer of its own begins without.
        assert_eq!(grown(&codec, TextStream::default(), &[world, world]), "world world");
        assert_eq!(codec.bytes(world), b" world");
    }

    #[test]
    fn parts_of_characters_are_bytes_and_come_out_whole() {
        for (json, special) in [(sentence_piece(), "</s>"), (recorded("tokenizer"), "<|end|>")] {
            let codec = codec(&json);
            let text = "日é本語日é本語日é";
            let tokens = codec.encode(&["Hello", text].concat(), false).unwrap();
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| codec.bytes(*token)).collect();
            assert!(bytes.ends_with(text.as_bytes()), "{bytes:?}");
            for cut in 1..tokens.len() {
                let (prompt, answer) = tokens.split_at(cut);
                let begun = codec.decode(codec.whole(prompt)).unwrap();
                let rest = grown(&codec, TextStream::after(&codec, prompt), answer);
                assert_eq!([begun.as_str(), &rest].concat(), ["Hello", text].concat(), "cut at {cut}");
            }
            let end = codec.token(special).unwrap();
            assert!(codec.is_special(end) && codec.bytes(end) == special.as_bytes());
        }
    }

    #[test]
    fn a_space_after_a_token_that_is_shown_stays() {
        let codec = codec(&sentence_piece());
        let (world, end) = (codec.token("▁world").unwrap(), codec.token("</s>").unwrap());
        let mut stream = TextStream::default();
        let text: String = [(world, false), (end, true), (world, false)]
            .map(|(token, shown)| stream.push(&codec, token, shown).unwrap())
            .concat();
        assert_eq!(text, "world</s> world");
    }
}
