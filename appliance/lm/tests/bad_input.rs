//! Damaged and lying models, adapters and GGUF files give an error that says what is wrong, and nothing else happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

#[path = "reference/gguf.rs"]
mod model_file;
mod reference;

use candle_core::Device;
use gap_lm::inference::{
    Adapter, BaseModel, Decoder, DecoderConfig, GgufFile, Kinship, Lineage, LoadError, Loader, SafetensorsDirectory,
    TensorSource,
};
use model_file::write_gguf;
use proptest::prelude::*;
use reference::{recorded, weights, write_adapter, write_model};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn load(directory: &Path) -> Result<Decoder, LoadError> {
    let config = DecoderConfig::read(directory)?;
    let source = SafetensorsDirectory::open(directory)?;
    Decoder::load(config, Loader { source: &source, precision: None, device: &Device::Cpu })
}

fn refusal(name: &str, damage: impl FnOnce(&Path)) -> String {
    let directory = tempfile::tempdir().unwrap();
    write_model(name, directory.path());
    damage(directory.path());
    load(directory.path()).expect_err("it is refused").to_string()
}

fn change_config(directory: &Path, change: impl FnOnce(&mut Value)) {
    let path = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_truncated_file_is_named() {
    let error = refusal("llama", |directory| {
        let path = directory.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 4]).unwrap();
    });
    assert!(error.contains("model.safetensors") && error.contains("truncated"), "{error}");
}

#[test]
fn a_header_that_claims_too_much_is_refused() {
    for size in [u64::MAX, 1 << 40, 99_999_999] {
        let error = refusal("llama", |directory| {
            let path = directory.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            bytes[..8].copy_from_slice(&size.to_le_bytes());
            fs::write(path, bytes).unwrap();
        });
        assert!(error.contains("header claims"), "{error}");
    }
}

#[test]
fn a_header_that_lies_about_shapes_is_refused() {
    let error = refusal("llama", |directory| {
        let path = directory.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes[8..2000]).replacen("[384,64]", "[384,65]", 1);
        let changed = [&bytes[..8], text.as_bytes(), &bytes[2000..]].concat();
        fs::write(path, changed).unwrap();
    });
    assert!(error.contains("header is not valid"), "{error}");
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let error = refusal("llama", |directory| {
        let name = "model.layers.1.mlp.up_proj.weight";
        let mut values = weights(name, &[160, 64]);
        values[777] = f32::NAN;
        reference::replace_tensor(directory, name, values);
    });
    assert!(error.contains("model.layers.1.mlp.up_proj.weight") && error.contains("NaN"), "{error}");
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_told_with_both_shapes() {
    let error =
        refusal("llama", |directory| change_config(directory, |config| config["intermediate_size"] = json!(192)));
    assert!(error.contains("[160, 64]") && error.contains("[192, 64]"), "{error}");
    let error = refusal("llama", |directory| change_config(directory, |config| config["num_hidden_layers"] = json!(4)));
    assert!(error.contains("model.layers.3."), "{error}");
    let error =
        refusal("llama", |directory| change_config(directory, |config| config["num_key_value_heads"] = json!(3)));
    assert!(error.contains("do not go together"), "{error}");
    let error = refusal("llama", |directory| change_config(directory, |config| config["hidden_size"] = json!(0)));
    assert!(error.contains("beyond reason"), "{error}");
    let error = refusal("llama", |directory| change_config(directory, |config| config["model_type"] = json!("mamba")));
    assert!(error.contains("mamba") && error.contains("qwen3"), "{error}");
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let error = refusal("llama", |directory| {
        let index = json!({"weight_map": {"model.norm.weight": "../model.safetensors"}});
        fs::write(directory.join("model.safetensors.index.json"), index.to_string()).unwrap();
    });
    assert!(error.contains("no name of a file beside it"), "{error}");
}

#[test]
fn an_adapter_for_another_base_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    write_model("llama", &base);
    let config = DecoderConfig::read(&base).unwrap();
    let adapter = directory.path().join("adapter");
    let refused = |shapes: [(usize, usize); 2], target: &str| {
        let values = shapes.map(|(rows, columns)| vec![0.5; rows * columns]);
        write_adapter(&adapter, target, shapes, [&values[0], &values[1]], 16.0);
        Adapter::load(&adapter, &config, &Device::Cpu).expect_err("it is refused").to_string()
    };
    let error = refused([(4, 128), (64, 4)], "model.layers.0.self_attn.q_proj");
    assert!(error.contains("[4, 128]") && error.contains("[4, 64]"), "{error}");
    let error = refused([(4, 64), (64, 4)], "model.layers.9.self_attn.q_proj");
    assert!(error.contains("layers.9") && error.contains("no place"), "{error}");

    let lineage = json!({"version": 1, "base": {"name": "other", "architecture": "x", "digest": "00ff"}});
    fs::write(adapter.join("lineage.json"), lineage.to_string()).unwrap();
    let error = Lineage::check(&adapter, &base).unwrap_err().to_string();
    assert!(error.contains("`other`") && error.contains("00ff"), "{error}");
}

#[test]
fn a_lineage_that_names_the_base_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    write_model("llama", &base);
    let sums = std::process::Command::new("sh")
        .args(["-c", "sha256sum config.json model.safetensors | sha256sum"])
        .current_dir(&base)
        .output()
        .unwrap();
    let digest = String::from_utf8(sums.stdout).unwrap()[..64].to_owned();
    let lineage = json!({"base": {"name": "base", "digest": digest}});
    let adapter = directory.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    fs::write(adapter.join("lineage.json"), lineage.to_string()).unwrap();
    assert_eq!(Lineage::check(&adapter, &base).unwrap(), Kinship::Proven);
    // Several adapters of one base, whose weights are read once: what becomes of them later is not seen.
    let weights = base.join("model.safetensors");
    let known = BaseModel::new(&base);
    assert_eq!(Lineage::check_with(&adapter, &known).unwrap(), Kinship::Proven);
    fs::rename(&weights, base.join("moved")).unwrap();
    assert_eq!(Lineage::check_with(&adapter, &known).unwrap(), Kinship::Proven);
    assert!(Lineage::check(&adapter, &base).unwrap_err().to_string().contains("serve it with its own base"));
    // What became of the same base as one file cannot be compared, and is not refused for it.
    let file = directory.path().join("base.gguf");
    write_gguf(&file, candle_core::quantized::GgmlDType::F32);
    assert_eq!(Lineage::check(&adapter, &file).unwrap(), Kinship::Unproven { trained_on: "base".to_owned() });
    fs::remove_file(adapter.join("lineage.json")).unwrap();
    assert_eq!(Lineage::check(&adapter, &file).unwrap(), Kinship::Unsaid);
}

#[test]
fn a_gguf_file_computes_what_its_directory_does() {
    use candle_core::quantized::GgmlDType;
    use gap_lm::inference::{Allocation, KvCache, Piece};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    for (kind, most) in [(GgmlDType::F32, 1e-4), (GgmlDType::F16, 0.05), (GgmlDType::Q8_0, 0.5)] {
        write_gguf(&path, kind);
        let file = GgufFile::open(&path).unwrap();
        let config = file.config().unwrap();
        assert_eq!(config.ends, [1]);
        let decoder = Decoder::load(config, Loader { source: &file, precision: None, device: &Device::Cpu }).unwrap();
        let mut cache = KvCache::new(decoder.config(), 128, &Device::Cpu).unwrap();
        for row in recorded("llama")["rows"].as_array().unwrap() {
            let (tokens, mut cached) = (reference::tokens(&row["tokens"]), Allocation::default());
            assert!(cache.reserve(&mut cached, tokens.len()));
            let pieces = [Piece { tokens: &tokens, start: 0, cached: &cached, adapter: None, logits: 1 }];
            let logits = decoder.forward(&cache, &pieces).unwrap().to_vec2::<f32>().unwrap().remove(0);
            cache.release(&mut cached);
            let difference = reference::difference(&logits, &reference::numbers(&row["logits"]));
            assert!(difference < most, "{kind:?}: {difference} after {}", row["prompt"]);
        }
    }
}

#[test]
fn a_truncated_gguf_file_is_refused_wherever_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    write_gguf(&path, candle_core::quantized::GgmlDType::Q8_0);
    let whole = fs::read(&path).unwrap();
    for end in (0..3000).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..end]).unwrap();
        let error = GgufFile::open(&path).err().unwrap_or_else(|| panic!("cut at {end}")).to_string();
        assert!(error.contains("model.gguf"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever a few bytes of the head become: an error or a model, never a crash or a request for much memory.
    #[test]
    fn a_lying_gguf_file_is_an_error_at_most(changes in prop::collection::vec((0usize..2500, any::<u8>()), 1..6)) {
        static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        let whole = WHOLE.get_or_init(|| {
            write_gguf(&path, candle_core::quantized::GgmlDType::Q8_0);
            fs::read(&path).unwrap()
        });
        let mut bytes = whole.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(file) = GgufFile::open(&path)
            && let Ok(config) = file.config()
        {
            drop(Decoder::load(config, Loader { source: &file, precision: None, device: &Device::Cpu }));
        }
    }

    #[test]
    fn a_lying_safetensors_file_is_an_error_at_most(changes in prop::collection::vec((0usize..3000, any::<u8>()), 1..6)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let values = weights("model.norm.weight", &[64]);
        let tensors = [("a".to_owned(), (vec![8, 8], values.clone())), ("b".to_owned(), (vec![64], values))];
        reference::write_tensors(&path, &tensors.into());
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(source) = SafetensorsDirectory::open(directory.path()) {
            drop(source.read("a", &[8, 8], &mut |_| {}));
        }
    }
}
