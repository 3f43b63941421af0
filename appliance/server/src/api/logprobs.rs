//! Probabilities of tokens, in the forms of the two kinds of answers.

use crate::engine::TokenLogprobs;
use serde_json::{Map, Value, json};

/// A token's text; one that is part of a character has its bytes written out, as OpenAI does it, so that no two of them look
/// the same.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |out, byte| format!("{out}\\x{byte:02x}")),
    }
}

/// Of a chat.
pub fn of_chat(tokens: &[TokenLogprobs]) -> Value {
    let entry = |bytes: &[u8], logprob: f32| json!({"token": shown(bytes), "logprob": logprob, "bytes": bytes});
    let each = tokens.iter().map(|token| {
        let best: Vec<Value> = token.best.iter().map(|(bytes, logprob)| entry(bytes, *logprob)).collect();
        let mut value = entry(&token.bytes, token.logprob);
        if let Some(value) = value.as_object_mut() {
            value.insert("top_logprobs".to_owned(), Value::Array(best));
        }
        value
    });
    json!({"content": each.collect::<Vec<_>>(), "refusal": null})
}

/// Of a text that is gone on with: the older form, lists side by side. It knows how long the text is so far.
#[derive(Debug, Clone, Copy)]
pub struct OfText {
    characters: usize,
}

impl OfText {
    /// Of what comes after a text that is given back.
    pub fn after(echo: &str) -> Self {
        Self { characters: echo.chars().count() }
    }

    /// The lists for more tokens.
    pub fn more(&mut self, tokens: &[TokenLogprobs]) -> Value {
        let offsets: Vec<usize> = tokens.iter().map(|token| self.offset(token)).collect();
        let best = tokens.iter().map(|token| {
            let mut best: Map<String, Value> = Map::new();
            for (bytes, logprob) in &token.best {
                // Of tokens with the same text the likeliest comes first.
                best.entry(shown(bytes)).or_insert_with(|| json!(logprob));
            }
            best
        });
        json!({
            "tokens": tokens.iter().map(|token| shown(&token.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": best.collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }

    /// Where a token begins: at the character that it is a part of.
    fn offset(&mut self, token: &TokenLogprobs) -> usize {
        let goes_on = |byte: &u8| byte & 0xC0 == 0x80;
        let inside = usize::from(token.bytes.first().is_some_and(goes_on));
        let offset = self.characters.saturating_sub(inside);
        if token.written {
            self.characters += token.bytes.iter().filter(|byte| !goes_on(byte)).count();
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8]) -> TokenLogprobs {
        let best = [bytes, b"\xE6", b"\xE7", b"x", b"x"].map(|bytes| (bytes.to_vec(), -1.0)).to_vec();
        TokenLogprobs { bytes: bytes.to_vec(), written: true, logprob: -0.5, best }
    }

    #[test]
    fn parts_of_characters_keep_their_bytes_and_their_place() {
        let tokens = [token(b" a"), token(b"\xE6\x97"), token(b"\xA5"), token(b"b")];
        let chat = of_chat(&tokens);
        assert_eq!(chat["content"][1]["bytes"], json!([0xE6, 0x97]));
        assert_eq!(chat["content"][1]["token"], "bytes:\\xe6\\x97");
        assert_eq!(chat["content"][0]["token"], " a");
        assert_eq!(chat["content"][0]["top_logprobs"][2]["bytes"], json!([0xE7]));

        let mut of_text = OfText::after("Hello");
        let lists = of_text.more(&tokens);
        assert_eq!(lists["text_offset"], json!([5, 7, 7, 8]));
        let best: Vec<&String> = lists["top_logprobs"][0].as_object().unwrap().keys().collect();
        assert_eq!(best, [" a", "bytes:\\xe6", "bytes:\\xe7", "x"]);
        // The next piece of a stream goes on where this one ended, and what is not written takes no room.
        let hidden = TokenLogprobs { written: false, ..token(b"</s>") };
        assert_eq!(of_text.more(&[hidden, token(b"c")])["text_offset"], json!([9, 9]));
    }
}
