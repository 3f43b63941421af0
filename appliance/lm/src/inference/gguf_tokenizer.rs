//! Tokenizers from what GGUF files say of them, as the tokenizers library knows them.

use super::{
    error::LoadError,
    gguf::{GgufFile, Value},
};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Kinds of tokens: those that write no text.
pub const CONTROL: i128 = 3;
/// Those that are text that is never cut.
const USER_DEFINED: i128 = 4;

/// Builds the tokenizer.
///
/// # Errors
/// Where the file has none, or one of a kind that is not known.
pub fn build(file: &GgufFile) -> Result<Tokenizer, LoadError> {
    let json = match text(file, "tokenizer.ggml.model") {
        Some("gpt2") => byte_level(file)?,
        Some("llama") => sentence_piece(file)?,
        other => return Err(unsupported(file, format!("tokenizer {other:?}"))),
    };
    Tokenizer::from_bytes(json.to_string())
        .map_err(|error| LoadError::damaged(file.path(), format!("its tokenizer is not valid: {error}")))
}

fn unsupported(file: &GgufFile, what: String) -> LoadError {
    LoadError::Unsupported {
        path: file.path().to_path_buf(),
        what,
        supported: "put the model's `tokenizer.json` beside the file",
    }
}

fn text<'a>(file: &'a GgufFile, name: &str) -> Option<&'a str> {
    match file.get(name)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn is_on(file: &GgufFile, name: &str, default: bool) -> bool {
    match file.get(name) {
        Some(Value::Bool(value)) => *value,
        _ => default,
    }
}

fn texts<'a>(file: &'a GgufFile, name: &str) -> Result<Vec<&'a str>, LoadError> {
    let missing = || LoadError::damaged(file.path(), format!("it does not say `{name}`"));
    let Some(Value::List(list)) = file.get(name) else { return Err(missing()) };
    let each = list.iter().map(|value| match value {
        Value::Text(text) => Ok(text.as_str()),
        _ => Err(missing()),
    });
    each.collect()
}

/// Tokens that are found in a text before anything else.
fn added(file: &GgufFile, tokens: &[&str]) -> Vec<Json> {
    let Some(Value::List(kinds)) = file.get("tokenizer.ggml.token_type") else { return Vec::new() };
    let each = tokens.iter().zip(kinds).enumerate().filter_map(|(id, (token, kind))| {
        let special = match kind {
            Value::Integer(CONTROL) => true,
            Value::Integer(USER_DEFINED) => false,
            _ => return None,
        };
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        }))
    });
    each.collect()
}

/// Puts the token before a text that the model wants there, if any.
fn post_processor(file: &GgufFile, tokens: &[&str], default: bool) -> Json {
    let first = match file.get("tokenizer.ggml.bos_token_id") {
        Some(Value::Integer(token)) if is_on(file, "tokenizer.ggml.add_bos_token", default) => {
            usize::try_from(*token).ok()
        }
        _ => None,
    };
    let Some((id, token)) = first.and_then(|id| Some((id, *tokens.get(id)?))) else { return Json::Null };
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}

fn vocabulary(tokens: &[&str]) -> Map<String, Json> {
    tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect()
}

fn byte_level(file: &GgufFile) -> Result<Json, LoadError> {
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let merges = texts(file, "tokenizer.ggml.merges")?;
    let pre = text(file, "tokenizer.ggml.pre").unwrap_or("default");
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |regex: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let pre_tokenizer = match pre {
        "default" | "gpt-2" => bytes(true),
        "llama-bpe" | "llama3" | "llama-v3" => split(LLAMA3),
        "qwen2" | "deepseek-r1-qwen" => split(QWEN2),
        "tekken" => split(TEKKEN),
        "smollm" => json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)],
        }),
        other => return Err(unsupported(file, format!("the way `{other}` of cutting text"))),
    };
    let whole_words = ["llama-bpe", "llama3", "llama-v3", "tekken"].contains(&pre);
    let normalizer = if pre == "qwen2" { json!({"type": "NFC"}) } else { Json::Null };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(file, &tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        // As llama.cpp takes it where a file does not say: these families put a token before every text.
        "post_processor": post_processor(file, &tokens, whole_words),
        "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": whole_words,
            "vocab": vocabulary(&tokens), "merges": merges,
        },
    }))
}

fn sentence_piece(file: &GgufFile) -> Result<Json, LoadError> {
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let Some(Value::List(scores)) = file.get("tokenizer.ggml.scores") else {
        return Err(LoadError::damaged(file.path(), "it has tokens without scores"));
    };
    let scores = scores.iter().map(|score| if let Value::Float(score) = score { *score } else { 0.0 });
    let mut replace = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    if is_on(file, "tokenizer.ggml.add_space_prefix", true) {
        replace.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(file, &tokens),
        "normalizer": {"type": "Sequence", "normalizers": replace},
        "pre_tokenizer": null,
        "post_processor": post_processor(file, &tokens, true),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary(&tokens), "merges": merges(&tokens, &scores.collect::<Vec<_>>()),
        },
    }))
}

/// The merges that lead to the same pieces as the scores do: better pieces first.
fn merges(tokens: &[&str], scores: &[f64]) -> Vec<[String; 2]> {
    let known: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        let cuts = token.char_indices().skip(1).filter_map(|(at, _)| token.split_at_checked(at));
        let mut found: Vec<_> = cuts.filter_map(|(l, r)| Some((*known.get(l)?, *known.get(r)?, l, r))).collect();
        found.sort_unstable();
        merges.extend(found.into_iter().map(|(_, _, l, r)| (*score, l, r)));
    }
    let length = |text: &str| text.chars().count();
    // Stable, and the other way round at equal scores, as the library's own conversion does it.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(length(b.1).cmp(&length(a.1))).then(length(b.2).cmp(&length(a.2))));
    merges.into_iter().map(|(_, l, r)| [l.to_owned(), r.to_owned()]).collect()
}
