//! Other forms of a model: merged, and as GGUF.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod tiny;

use candle_core::{Device, Tensor, quantized::gguf_file::Content};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use gap_lm::inference::{DecoderConfig, GgufFile, SafetensorsDirectory, TensorSource};
use serde_json::{Value, json};
use std::{fs, io::Cursor, path::Path};
use tiny::{distance, fail, logits, succeed, text};

const TOKENS: [u32; 12] = [257, 117, 115, 101, 114, 10, 72, 105, 33, 258, 10, 65];

#[test]
fn the_adapters_product_is_added_to_the_weights_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    tiny::model(&model, "LlamaForCausalLM", 1);
    for use_rslora in [false, true] {
        let adapter = dir.path().join(format!("adapter-{use_rslora}"));
        let merged = dir.path().join(format!("merged-{use_rslora}"));
        tiny::adapter(&adapter, use_rslora, 2);
        let printed = succeed(&["merge", text(&model), text(&adapter), "-o", text(&merged)]);
        assert!(printed.starts_with("8 of 21 tensors changed"), "{printed}");
        let weight = |dir: &Path, file: &str, name: &str| {
            candle_core::safetensors::load(dir.join(file), &Device::Cpu).unwrap().remove(name).unwrap()
        };
        let part = |name: &str| {
            let name = format!("base_model.model.model.layers.0.mlp.down_proj.{name}.weight");
            weight(&adapter, "adapter_model.safetensors", &name)
        };
        let (file, name) = ("model-00001-of-00002.safetensors", "model.layers.0.mlp.down_proj.weight");
        let scaling = if use_rslora { 8.0 / 4f64.sqrt() } else { 8.0 / 4.0 };
        let product = part("lora_B").matmul(&part("lora_A")).unwrap().affine(scaling, 0.0).unwrap();
        let numbers = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers((weight(&model, file, name) + product).unwrap());
        assert!(distance(&expected, &numbers(weight(&merged, file, name))) < 1e-6);
        let untouched = "model.layers.0.mlp.up_proj.weight";
        assert_eq!(numbers(weight(&model, file, untouched)), numbers(weight(&merged, file, untouched)));
        assert!(distance(&logits(&model, &TOKENS), &logits(&merged, &TOKENS)) > 0.1, "the adapter changes something");
        for name in
            ["tokenizer.json", "config.json", "model.safetensors.index.json", "model-00002-of-00002.safetensors"]
        {
            assert!(merged.join(name).is_file(), "{name}");
        }
    }
}

#[test]
fn weights_keep_their_type() {
    let dir = tempfile::tempdir().unwrap();
    let (model, adapter, merged) = (dir.path().join("model"), dir.path().join("adapter"), dir.path().join("merged"));
    tiny::model(&model, "LlamaForCausalLM", 1);
    tiny::adapter(&adapter, false, 2);
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let weights = candle_core::safetensors::load(model.join(name), &Device::Cpu).unwrap();
        let half = weights.into_iter().map(|(name, weight)| (name, weight.to_dtype(candle_core::DType::BF16).unwrap()));
        candle_core::safetensors::save(&half.collect(), model.join(name)).unwrap();
    }
    succeed(&["merge", text(&model), text(&adapter), "-o", text(&merged)]);
    let name = "model-00001-of-00002.safetensors";
    let (before, after) = (fs::read(model.join(name)).unwrap(), fs::read(merged.join(name)).unwrap());
    assert_eq!(before.len(), after.len());
    assert_ne!(before, after);
    let changed = candle_core::safetensors::load(merged.join(name), &Device::Cpu).unwrap();
    assert!(changed.values().all(|weight| weight.dtype() == candle_core::DType::BF16));
}

#[test]
fn an_adapter_for_another_base_is_refused_and_both_digests_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (model, other) = (dir.path().join("model"), dir.path().join("other"));
    let (run, merged) = (dir.path().join("run"), dir.path().join("merged"));
    tiny::model(&model, "LlamaForCausalLM", 1);
    tiny::model(&other, "LlamaForCausalLM", 5);
    tiny::adapter(&run.join("adapter"), false, 2);
    let digest = gap_train::digest::of_model(&model).unwrap();
    tiny::lineage(&run, &digest);
    let said = fail(&["merge", text(&other), text(&run.join("adapter")), "-o", text(&merged)]);
    let found = gap_train::digest::of_model(&other).unwrap();
    assert!(said.contains(&digest) && said.contains(&found) && !merged.exists(), "{said}");
    succeed(&["merge", text(&model), text(&run.join("adapter")), "-o", text(&merged)]);
    let said = fail(&["merge", text(&model), text(&run.join("adapter")), "-o", text(&merged)]);
    assert!(said.contains("is there already"), "{said}");

    let narrow = dir.path().join("narrow");
    tiny::adapter(&narrow, false, 2);
    let path = narrow.join("adapter_model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    weights.insert(name.to_owned(), Tensor::zeros((4, 32), candle_core::DType::F32, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&weights, &path).unwrap();
    let said = fail(&["merge", text(&model), text(&narrow), "-o", text(&dir.path().join("n"))]);
    assert!(said.contains("[64, 32]") && said.contains("[64, 64]") && said.contains(&digest), "{said}");
}

#[test]
fn damaged_adapters_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (model, adapter) = (dir.path().join("model"), dir.path().join("adapter"));
    tiny::model(&model, "LlamaForCausalLM", 1);
    tiny::adapter(&adapter, false, 2);
    let path = adapter.join("adapter_model.safetensors");
    let whole = fs::read(&path).unwrap();
    let merge = || fail(&["merge", text(&model), text(&adapter), "-o", text(&dir.path().join("merged"))]);
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    assert!(merge().contains("is damaged"));
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &nan).unwrap();
    assert!(merge().contains("not finite"));
    fs::write(&path, &whole).unwrap();
    tiny::write(
        &adapter.join("adapter_config.json"),
        &json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true}),
    );
    assert!(merge().contains("DoRA"));
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "nothing is left behind");
}

/// Logits of the last token by candle's own loader of GGUF.
fn candle_logits(path: &Path, architecture: &str) -> Vec<f32> {
    let mut file = Cursor::new(fs::read(path).unwrap());
    let content = Content::read(&mut file).unwrap();
    let device = Device::Cpu;
    let tokens = Tensor::new(&TOKENS, &device).unwrap().unsqueeze(0).unwrap();
    let logits = match architecture {
        "LlamaForCausalLM" => {
            quantized_llama::ModelWeights::from_gguf(content, &mut file, &device).unwrap().forward(&tokens, 0)
        }
        "Qwen2ForCausalLM" => {
            quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &device).unwrap().forward(&tokens, 0)
        }
        _ => quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &device).unwrap().forward(&tokens, 0),
    };
    logits.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn another_loader_of_gguf_computes_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    for architecture in ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
        let model = dir.path().join(architecture);
        tiny::model(&model, architecture, 3);
        let [half, eight] = ["f16", "q8_0"].map(|quant| {
            let path = dir.path().join(format!("{architecture}-{quant}.gguf"));
            succeed(&["export", text(&model), "-o", text(&path), "--quant", quant]);
            candle_logits(&path, architecture)
        });
        let size = half.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        assert!(size > 0.5 && half.iter().all(|logit| logit.is_finite()));
        assert!(distance(&half, &eight) < 0.1 * size, "{architecture}");
        if architecture == "LlamaForCausalLM" {
            let expected = logits(&model, &TOKENS);
            assert!(distance(&expected, &half) < 0.01 * size, "{expected:?} {half:?}");
        }
    }
}

#[test]
fn what_is_exported_is_read_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (model, path) = (dir.path().join("model"), dir.path().join("model.gguf"));
    tiny::model(&model, "LlamaForCausalLM", 3);
    // Queries and keys with biases, and positions stretched otherwise than usual.
    let name = model.join("model-00001-of-00002.safetensors");
    let mut weights = candle_core::safetensors::load(&name, &Device::Cpu).unwrap();
    let mut index: Value =
        serde_json::from_slice(&fs::read(model.join("model.safetensors.index.json")).unwrap()).unwrap();
    let biases = [("q_proj", 64), ("k_proj", 32), ("v_proj", 32)]
        .map(|(part, rows)| (format!("model.layers.0.self_attn.{part}.bias"), rows));
    for (bias, rows) in &biases {
        weights.insert(bias.clone(), Tensor::arange(0f32, *rows as f32, &Device::Cpu).unwrap());
        index["weight_map"][bias] = json!("model-00001-of-00002.safetensors");
    }
    candle_core::safetensors::save(&weights, &name).unwrap();
    tiny::write(&model.join("model.safetensors.index.json"), &index);
    let mut config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    config["attention_bias"] = json!(true);
    for more in [json!({}), json!({"original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0})] {
        config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0});
        config["rope_scaling"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tiny::write(&model.join("config.json"), &config);
        fs::remove_file(&path).ok();
        succeed(&["export", text(&model), "-o", text(&path), "--quant", "f16"]);
        let (directory, file) = (SafetensorsDirectory::open(&model).unwrap(), GgufFile::open(&path).unwrap());
        let read = |source: &dyn TensorSource, name: &str, shape: &[usize]| {
            let mut values = Vec::new();
            source.read(name, shape, &mut |piece| values.extend_from_slice(piece)).unwrap();
            values
        };
        for (bias, rows) in &biases {
            assert_eq!(read(&file, bias, &[*rows]), read(&directory, bias, &[*rows]), "{bias}");
        }
        for (part, rows) in [("q_proj", 64), ("k_proj", 32)] {
            let name = format!("model.layers.0.self_attn.{part}.weight");
            let shape = [rows, tiny::HIDDEN];
            assert!(distance(&read(&file, &name, &shape), &read(&directory, &name, &shape)) < 1e-3, "{name}");
        }
        assert_eq!(file.config().unwrap().rope, DecoderConfig::read(&model).unwrap().rope);
    }
}

#[test]
fn the_same_model_gives_the_same_gguf_and_a_failed_export_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    tiny::model(&model, "LlamaForCausalLM", 3);
    let [one, two] = ["1.gguf", "2.gguf"].map(|name| dir.path().join(name));
    for path in [&one, &two] {
        succeed(&["export", text(&model), "-o", text(path)]);
    }
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    let name = model.join("model-00002-of-00002.safetensors");
    let mut weights = candle_core::safetensors::load(&name, &Device::Cpu).unwrap();
    let norm = Tensor::full(f32::NAN, (tiny::HIDDEN,), &Device::Cpu).unwrap();
    weights.insert("model.norm.weight".to_owned(), norm);
    candle_core::safetensors::save(&weights, &name).unwrap();
    let three = dir.path().join("3.gguf");
    let said = fail(&["export", text(&model), "-o", text(&three)]);
    assert!(said.contains("`model.norm.weight`") && !three.exists(), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left behind");
}
