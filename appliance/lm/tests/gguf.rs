//! What GGUF files hold: every type of weights as ggml reads it, and tokenizers that cut as the ones they were made from.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod reference;

use candle_core::{
    DType, Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use gap_lm::inference::{DecoderConfig, GgufFile, Scaling, TensorSource};
use reference::recorded;
use serde_json::Value as Json;
use std::{fs, path::Path};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

fn bytes(hex: &Json) -> Vec<u8> {
    let text = hex.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A file with one tensor of one row.
fn with_tensor(kind: u32, width: u64, data: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(1u64.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    text(&mut file, "general.architecture");
    file.extend(8u32.to_le_bytes());
    text(&mut file, "llama");
    text(&mut file, "output_norm.weight");
    file.extend(1u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(kind.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

#[test]
fn every_type_is_read_as_ggml_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let rows = recorded("quantized");
    assert_eq!(rows.as_array().unwrap().len(), 10);
    for row in rows.as_array().unwrap() {
        let kind = u32::try_from(row["type"].as_u64().unwrap()).unwrap();
        let data = bytes(&row["bytes"]);
        fs::write(&path, with_tensor(kind, 256, &data)).unwrap();
        let mut found = Vec::new();
        let file = GgufFile::open(&path).unwrap();
        file.read("model.norm.weight", &[256], &mut |piece| found.extend_from_slice(piece)).unwrap();
        let values = bytes(&row["values"]);
        let expected = values.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{} {place}: {found} {expected}",
                row["name"]
            );
        }
        assert_eq!(found.len(), 256);
        // One byte less, and the last block is cut.
        fs::write(&path, with_tensor(kind, 256, &data[..data.len() - 1])).unwrap();
        assert!(GgufFile::open(&path).unwrap_err().to_string().contains("truncated"), "{}", row["name"]);
    }
    fs::write(&path, with_tensor(99, 256, &[0; 1024])).unwrap();
    let error = GgufFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("type 99 of tensor \"output_norm.weight\""), "{error}");
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(texts.into_iter().map(|text| Value::String(text.to_owned())).collect())
}

fn tokenizer(path: &Path, metadata: &[(&str, Value)]) -> Result<Tokenizer, String> {
    let architecture = Value::String("llama".to_owned());
    let all: Vec<(&str, &Value)> = [("general.architecture", &architecture)]
        .into_iter()
        .chain(metadata.iter().map(|(name, value)| (*name, value)))
        .collect();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &all, &[]).unwrap();
    GgufFile::open(path).unwrap().tokenizer().map_err(|error| error.to_string())
}

/// The byte-level tokenizer of the references, as llama.cpp's converter writes it.
fn byte_level(pre: &str) -> Vec<(&'static str, Value)> {
    let own = recorded("tokenizer");
    let mut tokens: Vec<(u64, &str)> = own["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.as_str()))
        .collect();
    let added: Vec<u64> =
        own["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    for token in own["added_tokens"].as_array().unwrap() {
        let (id, content) = (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap());
        if !tokens.iter().any(|(own, _)| *own == id) {
            tokens.push((id, content));
        }
    }
    tokens.sort_unstable();
    let kinds = tokens.iter().map(|(id, _)| Value::I32(if added.contains(id) { 3 } else { 1 })).collect();
    let merges: Vec<String> = own["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Json::String(line) => line.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        })
        .collect();
    vec![
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::String(pre.to_owned())),
        ("tokenizer.ggml.tokens", texts(tokens.iter().map(|(_, token)| *token))),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", texts(merges.iter().map(String::as_str))),
    ]
}

#[test]
fn a_byte_level_tokenizer_is_the_one_that_the_file_was_made_from() {
    let directory = tempfile::tempdir().unwrap();
    let made = tokenizer(&directory.path().join("model.gguf"), &byte_level("gpt-2")).unwrap();
    let own = Tokenizer::from_bytes(recorded("tokenizer").to_string()).unwrap();
    let special = own.id_to_token(1).unwrap();
    for text in ["Hello, world", "ä ö ü 日本語", "a\n\n  b\t12345", &format!("before {special} after"), ""] {
        let (found, expected) = (made.encode(text, false).unwrap(), own.encode(text, false).unwrap());
        assert_eq!(found.get_ids(), expected.get_ids(), "{text:?}");
        assert_eq!(made.decode(found.get_ids(), false).unwrap(), text);
    }
    assert_eq!(made.get_vocab_size(true), own.get_vocab_size(true));
}

#[test]
fn a_token_before_the_text_is_added_where_the_file_asks_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut metadata = byte_level("gpt-2");
    metadata.push(("tokenizer.ggml.bos_token_id", Value::U32(1)));
    let ids = |metadata: &[(&str, Value)]| {
        let made = tokenizer(&directory.path().join("model.gguf"), metadata).unwrap();
        made.encode("a", true).unwrap().get_ids().to_vec()
    };
    let without = ids(&metadata);
    metadata.push(("tokenizer.ggml.add_bos_token", Value::Bool(true)));
    assert_eq!(ids(&metadata), [vec![1], without].concat());
}

#[test]
fn the_families_of_llama_3_and_mistral_put_a_token_first_unless_the_file_says_no() {
    let directory = tempfile::tempdir().unwrap();
    let ids = |metadata: &[(&str, Value)]| {
        let made = tokenizer(&directory.path().join("model.gguf"), metadata).unwrap();
        made.encode("a", true).unwrap().get_ids().to_vec()
    };
    for (pre, first) in [("llama-bpe", true), ("tekken", true), ("qwen2", false), ("smollm", false)] {
        let mut metadata = byte_level(pre);
        metadata.push(("tokenizer.ggml.bos_token_id", Value::U32(1)));
        assert_eq!(ids(&metadata)[0] == 1, first, "{pre}");
        metadata.push(("tokenizer.ggml.add_bos_token", Value::Bool(false)));
        assert_ne!(ids(&metadata)[0], 1, "{pre}");
    }
}

/// What the shape of a small model is read as, with more metadata.
fn config(path: &Path, more: &[(&str, Value)]) -> DecoderConfig {
    let mut metadata = vec![("general.architecture", Value::String("llama".to_owned()))];
    for (name, size) in [
        ("llama.embedding_length", 64),
        ("llama.feed_forward_length", 160),
        ("llama.block_count", 1),
        ("llama.attention.head_count", 4),
        ("llama.context_length", 512),
    ] {
        metadata.push((name, Value::U32(size)));
    }
    metadata.extend(more.iter().cloned());
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let table = Tensor::zeros((8, 64), DType::F32, &Device::Cpu).unwrap();
    let table = QTensor::quantize(&table, GgmlDType::F32).unwrap();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &[("token_embd.weight", &table)]).unwrap();
    GgufFile::open(path).unwrap().config().unwrap()
}

#[test]
fn a_token_whose_name_ends_a_turn_ends_a_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    // As early files of Llama 3 are: the end of a turn is there, and not said to be an end.
    let tokens = ["a", "<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|start_header_id|>"];
    let mut metadata = vec![
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.token_type", Value::Array([1, 3, 3, 1, 3].map(Value::I32).to_vec())),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
    ];
    assert_eq!(config(&path, &metadata).ends, [2, 1], "what is ordinary text ends nothing");
    metadata.push(("tokenizer.ggml.eot_token_id", Value::U32(4)));
    assert_eq!(config(&path, &metadata).ends, [2, 4, 1]);
}

#[test]
fn yarn_is_read_as_llama_cpp_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut metadata = vec![
        ("llama.rope.scaling.type", Value::String("yarn".to_owned())),
        ("llama.rope.scaling.factor", Value::F32(4.0)),
    ];
    let usual = 0.1 * 4f32.ln() + 1.0;
    let expected = |attention, fast, slow, original| Scaling::Yarn {
        factor: 4.0,
        attention,
        fast,
        slow,
        original,
        truncate: true,
    };
    // Without a word it is the file's own context.
    assert_eq!(config(&path, &metadata).rope.scaling, expected(usual, 32.0, 1.0, 512.0));
    metadata.push(("llama.rope.scaling.original_context_length", Value::U32(128)));
    metadata.push(("llama.rope.scaling.attn_factor", Value::F32(2.0)));
    metadata.push(("llama.rope.scaling.yarn_beta_fast", Value::F32(16.0)));
    metadata.push(("llama.rope.scaling.yarn_beta_slow", Value::F32(2.0)));
    assert_eq!(config(&path, &metadata).rope.scaling, expected(2.0 * usual, 16.0, 2.0, 128.0));
}

#[test]
fn text_is_cut_as_each_family_cuts_it() {
    let directory = tempfile::tempdir().unwrap();
    let text = "HelloWorld don't 12345";
    for (pre, expected) in [
        ("llama-bpe", ["HelloWorld", " don", "'t", " ", "123", "45"].as_slice()),
        ("qwen2", &["HelloWorld", " don", "'t", " ", "1", "2", "3", "4", "5"]),
        ("tekken", &["Hello", "World", " don", "'t", " ", "1", "2", "3", "4", "5"]),
        ("smollm", &["HelloWorld", " don", "'t", " ", "1", "2", "3", "4", "5"]),
        ("gpt-2", &["HelloWorld", " don", "'t", " 12345"]),
    ] {
        let made = tokenizer(&directory.path().join("model.gguf"), &byte_level(pre)).unwrap();
        let mut cut = PreTokenizedString::from(text);
        made.get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
        let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let found: Vec<&str> = splits.iter().map(|(_, (start, end), _)| &text[*start..*end]).collect();
        assert_eq!(found, expected, "{pre}");
    }
    let unknown = tokenizer(&directory.path().join("model.gguf"), &byte_level("new-one")).unwrap_err();
    assert!(unknown.contains("`new-one`") && unknown.contains("tokenizer.json"), "{unknown}");
}

#[test]
fn a_sentencepiece_tokenizer_merges_by_score_and_falls_back_to_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut tokens = vec![("<unk>".to_owned(), 2, 0.0), ("<s>".to_owned(), 3, 0.0), ("</s>".to_owned(), 3, 0.0)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6, 0.0)));
    // By score `bc` comes before `ab`, so `abc` is `a` and `bc`.
    let pieces = [("bc", -1.0), ("ab", -2.0), ("▁a", -3.0), ("▁", -10.0), ("a", -10.0), ("b", -10.0), ("c", -10.0)];
    tokens.extend(pieces.map(|(piece, score)| (piece.to_owned(), 1, score)));
    let metadata = [
        ("tokenizer.ggml.model", Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens", texts(tokens.iter().map(|(token, ..)| token.as_str()))),
        ("tokenizer.ggml.token_type", Value::Array(tokens.iter().map(|(_, kind, _)| Value::I32(*kind)).collect())),
        ("tokenizer.ggml.scores", Value::Array(tokens.iter().map(|(.., score)| Value::F32(*score)).collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
    ];
    let made = tokenizer(&path, &metadata).unwrap();
    let encoded = made.encode("abc ab\né", true).unwrap();
    assert_eq!(encoded.get_tokens(), ["<s>", "▁a", "bc", "▁", "ab", "<0x0A>", "<0xC3>", "<0xA9>"]);
    assert_eq!(made.decode(encoded.get_ids(), true).unwrap(), "abc ab\né");
    let without: Vec<(&str, Value)> = metadata.iter().filter(|(name, _)| !name.ends_with("scores")).cloned().collect();
    assert!(tokenizer(&path, &without).unwrap_err().contains("tokens without scores"));
    let unigram = [("tokenizer.ggml.model", Value::String("t5".to_owned()))];
    assert!(tokenizer(&path, &unigram).unwrap_err().contains("tokenizer Some(\"t5\")"));
}
