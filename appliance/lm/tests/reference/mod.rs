//! Small models whose weights follow from a formula, and what unmodified Transformers computes with them (`make.py`).

#![allow(dead_code, reason = "each test uses a part of it")]

use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Decoders there are references of.
pub const DECODERS: [&str; 6] = ["llama", "llama3", "mistral", "qwen2", "qwen3", "yarn"];
/// Encoders there are references of.
pub const ENCODERS: [&str; 3] = ["bert", "distilbert", "roberta"];

/// A chat template in the manner of Qwen's.
pub const TEMPLATE: &str = "{%- if tools %}<|im_start|>system\nTools: {{ tools | tojson }} Use <tool_call>.<|im_end|>\n{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/reference")
}

/// What was recorded of a model.
pub fn recorded(name: &str) -> Value {
    serde_json::from_slice(&fs::read(directory().join(format!("{name}.json"))).unwrap()).unwrap()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// A list of tokens.
pub fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|value| u32::try_from(value.as_u64().unwrap()).unwrap()).collect()
}

/// Numbers in -1…1 that follow from a name.
fn hashed(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let start = name.bytes().fold(0x811C_9DC5u32, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..u32::try_from(count).unwrap()).map(move |index| {
        let mut x = index.wrapping_mul(0x9E37_79B1).wrapping_add(start);
        x ^= x >> 16;
        x = x.wrapping_mul(0x85EB_CA6B);
        x ^= x >> 13;
        x = x.wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        f64::from(x) / f64::from(1u32 << 31) - 1.0
    })
}

/// The weights of a tensor.
pub fn weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let width = *shape.last().unwrap() as f64;
    let change: Box<dyn Fn(f64) -> f64> = if shape.len() == 1 {
        let one = if name.to_lowercase().contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        Box::new(move |value| 0.1 * value + one)
    } else if name.contains("embed") {
        Box::new(|value| value)
    } else {
        let scale = if name.contains("layers") || name.contains("layer.") { 2.0 } else { 6.0 };
        Box::new(move |value| value * scale / width.sqrt())
    };
    hashed(name, count).map(|value| change(value) as f32).collect()
}

/// Names and shapes of a model's tensors.
pub fn shapes(recorded: &Value) -> BTreeMap<String, Vec<usize>> {
    let shape = |value: &Value| value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    recorded["shapes"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), shape(value))).collect()
}

/// Writes tensors as a safetensors file of 32-bit numbers.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Writes a model's directory.
pub fn write_model(name: &str, at: &Path) {
    let recorded = recorded(name);
    fs::create_dir_all(at).unwrap();
    fs::write(at.join("config.json"), recorded["config"].to_string()).unwrap();
    fs::copy(directory().join("tokenizer.json"), at.join("tokenizer.json")).unwrap();
    let tensors = shapes(&recorded).into_iter().map(|(name, shape)| {
        let values = weights(&name, &shape);
        (name, (shape, values))
    });
    write_tensors(&at.join("model.safetensors"), &tensors.collect());
}

/// A SentencePiece tokenizer with bytes to fall back to, in the manner of Mistral's: words begin with a space that the first
/// of a text is given.
pub fn sentence_piece() -> Value {
    let letters = ["▁", "H", "e", "l", "o", "w", "r", "d"].map(ToOwned::to_owned);
    let merges: Vec<[String; 2]> = ["▁Hello", "▁world"]
        .into_iter()
        .flat_map(|word| word.char_indices().skip(1).map(|(at, letter)| [word[..at].to_owned(), letter.to_string()]))
        .collect();
    let names = ["<unk>", "<s>", "</s>"].map(ToOwned::to_owned).into_iter();
    let names = names.chain((0..=255).map(|byte| format!("<0x{byte:02X}>"))).chain(letters);
    let names = names.chain(merges.iter().map(|pair| pair.concat()));
    // Every row of the small models is a token.
    let names = names.chain((0..384).map(|number| format!("<unused{number}>"))).take(384);
    let vocabulary: serde_json::Map<String, Value> = names.zip((0..).map(|id: u32| Value::from(id))).collect();
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges},
    })
}

/// The largest difference of two rows.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Writes an adapter of one layer.
pub fn write_adapter(at: &Path, target: &str, shapes: [(usize, usize); 2], values: [&[f32]; 2], alpha: f32) {
    fs::create_dir_all(at).unwrap();
    let config = serde_json::json!({
        "peft_type": "LORA", "r": shapes[0].0, "lora_alpha": alpha, "target_modules": ["q_proj"], "bias": "none",
        "task_type": "CAUSAL_LM", "use_rslora": false,
    });
    fs::write(at.join("adapter_config.json"), config.to_string()).unwrap();
    let tensors = ["A", "B"].into_iter().zip(shapes).zip(values).map(|((half, (rows, columns)), values)| {
        (format!("base_model.model.{target}.lora_{half}.weight"), (vec![rows, columns], values.to_vec()))
    });
    write_tensors(&at.join("adapter_model.safetensors"), &tensors.collect());
}

/// Puts other values into one tensor of a model's directory.
pub fn replace_tensor(at: &Path, name: &str, values: Vec<f32>) {
    let path = at.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = found
        .iter()
        .map(|(name, view)| {
            let values = view.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect();
    tensors.get_mut(name).unwrap().1 = values;
    write_tensors(&path, &tensors);
}
