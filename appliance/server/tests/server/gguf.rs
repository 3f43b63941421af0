//! A model that is one file, alone and with an adapter.

use crate::{
    model_file::write_gguf,
    process::{Server, complaint, reference_file},
    reference::{recorded, weights, write_adapter},
};
use candle_core::quantized::GgmlDType;
use serde_json::{Value, json};
use std::{fs, path::Path};

fn write(at: &Path) {
    write_gguf(&at.join("model.gguf"), GgmlDType::F32);
    fs::copy(reference_file("tokenizer.json"), at.join("tokenizer.json")).unwrap();
}

fn text(server: &Server, model: &str, prompt: &Value) -> Value {
    let request = json!({"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    server.ask("/v1/completions", &request)["choices"][0]["text"].clone()
}

#[test]
fn a_model_that_is_one_file_answers_as_its_directory_does() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let server = Server::with_model("file", &directory.path().join("model.gguf"));
    for row in recorded("llama")["rows"].as_array().unwrap() {
        assert_eq!(text(&server, "file", &row["prompt"]), row["text"], "after {}", row["prompt"]);
    }
}

#[test]
fn an_adapter_is_served_on_a_model_that_is_one_file() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let adapter = directory.path().join("run/adapter");
    let values = [("a", 256), ("b", 256)].map(|(name, count)| weights(name, &[count / 4, 4]));
    write_adapter(&adapter, "model.layers.1.self_attn.q_proj", [(4, 64), (64, 4)], [&values[0], &values[1]], 64.0);
    // As gap-train leaves it: beside the adapter.
    let lineage = json!({"version": 1, "base": {"name": "small-llama", "architecture": "x", "digest": "00ff"}});
    fs::write(directory.path().join("run/lineage.json"), lineage.to_string()).unwrap();
    let model = format!("--model=file={}", directory.path().join("model.gguf").display());
    let tuned = format!("--adapter=tuned=file:{}", adapter.display());
    let server = Server::with_arguments(&[model.clone(), tuned]);
    assert!(server.warned().contains("`tuned` was trained on `small-llama`"), "{}", server.warned());
    let prompt = json!("The quick brown fox");
    assert_ne!(text(&server, "tuned", &prompt), text(&server, "file", &prompt));

    // One for another shape is refused as it always was.
    write_adapter(
        &adapter,
        "model.layers.1.self_attn.q_proj",
        [(2, 128), (64, 2)],
        [&values[0], &values[1][..128]],
        1.0,
    );
    let said = complaint(&[model, format!("--adapter=tuned=file:{}", adapter.display())]);
    assert!(said.contains("adapter `tuned`") && said.contains("[2, 64]"), "{said}");
}

#[test]
fn a_file_whose_weights_are_no_numbers_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let path = directory.path().join("model.gguf");
    let mut bytes = fs::read(&path).unwrap();
    // The last tensor ends where the file does, but for the alignment.
    let last = bytes.len() / 4 * 4 - 64;
    bytes[last..last + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let said = complaint(&[format!("--model=m={}", path.display()), "--listen=127.0.0.1:0".to_owned()]);
    assert!(said.contains("model `m`") && said.contains("NaN"), "{said}");
}
