//! A `tokenizer.json` in the words of GGUF.
//!
//! Two kinds go over: byte-level BPE (`gpt2` in GGUF), whose way of cutting text up must be one that llama.cpp knows by
//! name; and SentencePiece's BPE with bytes to fall back to (`llama`).

use super::format::Value;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};

/// Kinds of tokens, by GGUF's numbers.
mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// Ways of cutting text up before BPE, by the expression in `tokenizer.json`, and llama.cpp's name of each.
const CUTS: [(&str, &str); 3] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "tekken",
    ),
];

/// Why a tokenizer cannot be described in GGUF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// A file is not as expected.
    #[error("{file} is not as expected: {source}")]
    Json {
        /// Which one.
        file: &'static str,
        /// The reason.
        source: serde_json::Error,
    },
    /// Another kind of tokenizer.
    #[error("a tokenizer of the kind {0:?} cannot be exported; BPE can")]
    Kind(String),
    /// Text is cut up in a way that has no name in GGUF.
    #[error("the tokenizer cuts text up by {0}, for which llama.cpp has no name")]
    Cut(String),
    /// More tokens than the model has embeddings.
    #[error("the tokenizer has the token {token}, but the model has embeddings for {embeddings}")]
    TooLarge {
        /// The highest token.
        token: u32,
        /// Rows of the embedding.
        embeddings: u32,
    },
    /// A token id stands for two tokens.
    #[error("the tokenizer gives the number {0} to two tokens")]
    Repeated(u32),
}

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Json>,
    pre_tokenizer: Option<Json>,
    post_processor: Option<Json>,
    model: Json,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
    unk_token: Option<String>,
}

/// A pair that is put together, in the newer and the older form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn line(&self) -> String {
        match self {
            Self::Pair(left, right) => format!("{left} {right}"),
            Self::Line(line) => line.clone(),
        }
    }

    fn result(&self) -> String {
        match self {
            Self::Pair(left, right) => format!("{left}{right}"),
            Self::Line(line) => line.replacen(' ', "", 1),
        }
    }
}

/// `tokenizer_config.json`; all of it is optional.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    unk_token: Option<Named>,
    pad_token: Option<Named>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Template>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Token { content: String },
}

impl Named {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// The files that a tokenizer is described by.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`, if there is one.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`, if there is one; it goes before the template in `tokenizer_config.json`.
    pub template: Option<&'a str>,
}

/// The metadata that describe a tokenizer, for a model with so many rows in its embedding.
///
/// # Errors
/// [`VocabularyError`].
pub fn metadata(files: Files<'_>, embeddings: u32) -> Result<Vec<(String, Value)>, VocabularyError> {
    let json = |file| move |source| VocabularyError::Json { file, source };
    let tokenizer: TokenizerJson = serde_json::from_slice(files.tokenizer).map_err(json("tokenizer.json"))?;
    let config = files.config.map(serde_json::from_slice).transpose();
    let config: TokenizerConfig = config.map_err(json("tokenizer_config.json"))?.unwrap_or_default();
    let kind = tokenizer.model.get("type").and_then(Json::as_str).unwrap_or("BPE").to_owned();
    if kind != "BPE" {
        return Err(VocabularyError::Kind(kind));
    }
    let bpe: Bpe = serde_json::from_value(tokenizer.model.clone()).map_err(json("tokenizer.json"))?;
    let tokens = Tokens::new(&tokenizer, &bpe, embeddings)?;

    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut metadata = Vec::new();
    if bpe.byte_fallback {
        metadata.push((key("model"), Value::Text("llama".to_owned())));
        metadata.push((key("pre"), Value::Text("default".to_owned())));
        metadata.push((key("scores"), Value::F32s(tokens.scores(&bpe))));
        metadata.push((key("add_space_prefix"), Value::Bool(puts_space_first(&tokenizer))));
    } else {
        metadata.push((key("model"), Value::Text("gpt2".to_owned())));
        metadata.push((key("pre"), Value::Text(cut_name(tokenizer.pre_tokenizer.as_ref())?.to_owned())));
        metadata.push((key("merges"), Value::Texts(bpe.merges.iter().map(Merge::line).collect())));
    }
    let named = [
        ("bos_token_id", &config.bos_token),
        ("eos_token_id", &config.eos_token),
        ("unknown_token_id", &config.unk_token),
        ("padding_token_id", &config.pad_token),
    ];
    for (name, token) in named {
        if let Some(id) = token.as_ref().and_then(|token| tokens.ids.get(token.text())) {
            metadata.push((key(name), Value::U32(*id)));
        }
    }
    let first = config.bos_token.as_ref().map(Named::text);
    let last = config.eos_token.as_ref().map(Named::text);
    let adds = |token: Option<&str>, at_start| token.is_some_and(|token| adds_token(&tokenizer, token, at_start));
    let adds_first = config.add_bos_token.unwrap_or_else(|| adds(first, true));
    let adds_last = config.add_eos_token.unwrap_or_else(|| adds(last, false));
    metadata.push((key("add_bos_token"), Value::Bool(adds_first)));
    metadata.push((key("add_eos_token"), Value::Bool(adds_last)));
    if let Some(template) = files.template.map(str::to_owned).or_else(|| chat_template(config.chat_template)) {
        metadata.push(("tokenizer.chat_template".to_owned(), Value::Text(template)));
    }
    metadata.push((key("token_type"), Value::I32s(tokens.kinds)));
    metadata.push((key("tokens"), Value::Texts(tokens.texts)));
    Ok(metadata)
}

fn chat_template(written: Option<Template>) -> Option<String> {
    match written? {
        Template::One(template) => Some(template),
        Template::Several(templates) => {
            templates.into_iter().find(|template| template.name == "default").map(|named| named.template)
        }
    }
}

/// Every row of the embedding as a token.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
    ids: BTreeMap<String, u32>,
}

impl Tokens {
    fn new(tokenizer: &TokenizerJson, bpe: &Bpe, embeddings: u32) -> Result<Self, VocabularyError> {
        let mut rows: BTreeMap<u32, (&str, i32)> = BTreeMap::new();
        for (text, &id) in &bpe.vocab {
            let kind = match text {
                text if bpe.byte_fallback && is_byte(text) => kind::BYTE,
                text if bpe.byte_fallback && Some(text) == bpe.unk_token.as_ref() => kind::UNKNOWN,
                _ => kind::NORMAL,
            };
            if rows.insert(id, (text.as_str(), kind)).is_some() {
                return Err(VocabularyError::Repeated(id));
            }
        }
        for added in &tokenizer.added_tokens {
            let kind = match rows.get(&added.id) {
                Some((text, _)) if *text != added.content => return Err(VocabularyError::Repeated(added.id)),
                Some((_, kind::UNKNOWN)) => kind::UNKNOWN,
                _ if added.special => kind::CONTROL,
                _ => kind::USER_DEFINED,
            };
            rows.insert(added.id, (added.content.as_str(), kind));
        }
        if let Some((&token, _)) = rows.last_key_value()
            && token >= embeddings
        {
            return Err(VocabularyError::TooLarge { token, embeddings });
        }
        let ids = rows.iter().map(|(&id, (text, _))| ((*text).to_owned(), id)).collect();
        let row = |id| {
            rows.get(&id).map_or_else(|| (format!("[PAD{id}]"), kind::UNUSED), |&(text, kind)| (text.to_owned(), kind))
        };
        let (texts, kinds) = (0..embeddings).map(row).unzip();
        Ok(Self { texts, kinds, ids })
    }

    /// SentencePiece puts the pair with the highest score together first: the order of the merges, downwards.
    #[allow(clippy::cast_precision_loss, reason = "ranks are far below 2^24")]
    fn scores(&self, bpe: &Bpe) -> Vec<f32> {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, merge) in bpe.merges.iter().enumerate() {
            ranks.entry(merge.result()).or_insert(rank);
        }
        let last = bpe.merges.len();
        let score = |(text, kind): (&String, &i32)| match *kind {
            kind::NORMAL => -(*ranks.get(text).unwrap_or(&last) as f32),
            _ => 0.0,
        };
        self.texts.iter().zip(&self.kinds).map(score).collect()
    }
}

fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The steps of something that may be a sequence of steps.
fn steps<'a>(json: &'a Json, list: &str) -> Vec<&'a Json> {
    match json.get(list).and_then(Json::as_array) {
        Some(steps) => steps.iter().collect(),
        None => vec![json],
    }
}

fn is(step: &Json, kind: &str) -> bool {
    step.get("type").and_then(Json::as_str) == Some(kind)
}

/// llama.cpp's name for the way in which text is cut up before byte-level BPE.
fn cut_name(pre_tokenizer: Option<&Json>) -> Result<&'static str, VocabularyError> {
    let steps = pre_tokenizer.map(|json| steps(json, "pretokenizers")).unwrap_or_default();
    let unknown = || VocabularyError::Cut(pre_tokenizer.map_or_else(|| "nothing".to_owned(), Json::to_string));
    let expression = |step: &Json| step.pointer("/pattern/Regex").and_then(Json::as_str).map(str::to_owned);
    let gpt2 = |step: &Json| is(step, "ByteLevel") && step.get("use_regex").and_then(Json::as_bool) != Some(false);
    match steps.as_slice() {
        [only] if gpt2(only) => Ok("gpt-2"),
        [digits, level] if is(digits, "Digits") && gpt2(level) => {
            let each = digits.get("individual_digits").and_then(Json::as_bool) == Some(true);
            each.then_some("smollm").ok_or_else(unknown)
        }
        [split, level] if is(split, "Split") && is(level, "ByteLevel") && !gpt2(level) => {
            let expression = expression(split).ok_or_else(unknown)?;
            CUTS.iter().find(|(known, _)| *known == expression).map(|(_, name)| *name).ok_or_else(unknown)
        }
        _ => Err(unknown()),
    }
}

/// Whether a text gets a space in front before SentencePiece's BPE.
fn puts_space_first(tokenizer: &TokenizerJson) -> bool {
    let pre = tokenizer.pre_tokenizer.iter().flat_map(|json| steps(json, "pretokenizers"));
    let mut pre = pre.filter(|step| is(step, "Metaspace"));
    let mut normal = tokenizer.normalizer.iter().flat_map(|json| steps(json, "normalizers"));
    pre.any(|step| match step.get("prepend_scheme").and_then(Json::as_str) {
        Some(scheme) => scheme != "never",
        None => step.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(true),
    }) || normal.any(|step| is(step, "Prepend"))
}

/// Whether the tokenizer puts a token before (or after) every text.
fn adds_token(tokenizer: &TokenizerJson, token: &str, at_start: bool) -> bool {
    let steps = tokenizer.post_processor.iter().flat_map(|json| steps(json, "processors"));
    let ends = steps.filter(|step| is(step, "TemplateProcessing")).filter_map(|step| {
        let single = step.get("single")?.as_array()?;
        if at_start { single.first() } else { single.last() }
    });
    ends.into_iter().any(|end| end.pointer("/SpecialToken/id").and_then(Json::as_str) == Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn describe(tokenizer: &Json, config: &Json, rows: u32) -> Result<HashMap<String, Value>, VocabularyError> {
        let (tokenizer, config) = (tokenizer.to_string(), config.to_string());
        let files = Files { tokenizer: tokenizer.as_bytes(), config: Some(config.as_bytes()), template: None };
        metadata(files, rows).map(|metadata| metadata.into_iter().collect())
    }

    fn byte_level() -> Json {
        json!({
            "added_tokens": [{"id": 3, "content": "<s>", "special": true}, {"id": 4, "content": "<tool>", "special": false}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        })
    }

    #[test]
    fn byte_level_tokens_keep_their_numbers_and_the_rest_is_padding() {
        let template = json!([{"name": "default", "template": "T"}]);
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "<s>", "chat_template": template});
        let found = describe(&byte_level(), &config, 6).unwrap();
        let texts = ["a", "b", "ab", "<s>", "<tool>", "[PAD5]"].map(str::to_owned).to_vec();
        assert_eq!(found["tokenizer.ggml.tokens"], Value::Texts(texts));
        assert_eq!(found["tokenizer.ggml.token_type"], Value::I32s(vec![1, 1, 1, 3, 4, 5]));
        assert_eq!(found["tokenizer.ggml.merges"], Value::Texts(vec!["a b".to_owned()]));
        assert_eq!(found["tokenizer.ggml.bos_token_id"], Value::U32(3));
        assert_eq!(found["tokenizer.ggml.add_bos_token"], Value::Bool(true));
        assert_eq!(found["tokenizer.ggml.pre"], Value::Text("gpt-2".to_owned()));
        assert_eq!(found["tokenizer.chat_template"], Value::Text("T".to_owned()));
    }

    #[test]
    fn sentencepiece_scores_follow_the_order_of_the_merges() {
        let tokenizer = json!({
            "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
            "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "<0x0A>": 1, "a": 2, "b": 3, "ba": 4, "ab": 5}, "merges": ["a b", "b a"]},
        });
        let found = describe(&tokenizer, &json!({}), 6).unwrap();
        assert_eq!(found["tokenizer.ggml.model"], Value::Text("llama".to_owned()));
        assert_eq!(found["tokenizer.ggml.token_type"], Value::I32s(vec![2, 6, 1, 1, 1, 1]));
        assert_eq!(found["tokenizer.ggml.scores"], Value::F32s(vec![0., 0., -2., -2., -1., 0.]));
        assert_eq!(found["tokenizer.ggml.add_space_prefix"], Value::Bool(true));
    }

    #[test]
    fn what_has_no_name_in_gguf_is_refused() {
        let mut tokenizer = byte_level();
        tokenizer["pre_tokenizer"] = json!({"type": "Whitespace"});
        assert!(matches!(describe(&tokenizer, &json!({}), 6), Err(VocabularyError::Cut(_))));
        assert!(matches!(describe(&byte_level(), &json!({}), 4), Err(VocabularyError::TooLarge { token: 4, .. })));
        tokenizer["model"]["type"] = json!("Unigram");
        assert!(matches!(describe(&tokenizer, &json!({}), 6), Err(VocabularyError::Kind(_))));
        let mut twice = byte_level();
        twice["model"]["vocab"]["c"] = json!(1);
        assert!(matches!(describe(&twice, &json!({}), 6), Err(VocabularyError::Repeated(1))));
    }
}
