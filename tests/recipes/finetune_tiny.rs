//! Fine-tuning in small: data that is cleaned on its way, a model of Llama's shape from a hub, and a training in the image.

use crate::{
    checklist::Checklist,
    connected::Connected,
    fixture::fail_with,
    shipped::{Shipped, json_lines, text},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs};

const REPO: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
const TICKETS: [&str; 2] = ["2024.jsonl", "2025.jsonl"];

/// The recipe, with a small model under the name of the one that it asks for; how many parameters that has.
fn recipe(connected: &Connected) -> (Shipped, u64) {
    let shipped = Shipped::new("finetune-tiny");
    for tickets in TICKETS {
        fs::write(connected.path().join(tickets), text(&shipped, format!("finetune-tiny/tickets/{tickets}"))).unwrap();
    }
    let arguments = [&["model"], &TICKETS[..]].concat();
    let made = json_lines(&connected.python("tests/recipes/make_llama.py", &[], &arguments));
    shipped.publish(REPO, "apache-2.0", &connected.files("model"));
    (shipped, made[0]["parameters"].as_u64().unwrap())
}

/// The rows of a prepared part, as the image has them.
fn rows(shipped: &Shipped, part: &str) -> Vec<Value> {
    let printed = shipped.run("train", &["cat", &format!("/data/tickets/{part}.jsonl")]);
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_is_trained_in_the_image_on_data_that_was_cleaned_on_its_way() {
    let connected = Connected::new();
    let (shipped, parameters) = recipe(&connected);
    shipped.build(&[("imports", "train"), ("trains", "train")]);

    let card: Value = serde_json::from_str(&shipped.run("train", &["cat", "/data/tickets/card.json"])).unwrap();
    let examples = &card["examples"];
    let counts =
        ["rows", "bad", "exact_duplicates", "near_duplicates", "kept"].map(|key| examples[key].as_u64().unwrap());
    assert_eq!(counts, [127, 0, 4, 3, 120], "{card:#}");
    let found: BTreeMap<&str, u64> = card["pii"]["counts"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(kind, count)| Some((kind.as_str(), count.as_u64().filter(|count| *count > 0)?)))
        .collect();
    assert_eq!(found, [("CARD", 1), ("EMAIL", 2), ("IBAN", 1), ("IP", 1), ("PHONE", 2)].into(), "{card:#}");

    let parts = ["train", "validation", "test"].map(|part| rows(&shipped, part));
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 120);
    assert!(parts.iter().all(|part| !part.is_empty()));
    let all = serde_json::to_string(&parts).unwrap();
    for gone in ["plant-nord.example", "+46 8", "+49 89", "DE89 3704", "4111 1111", "203.0.113.87"] {
        assert!(!all.contains(gone), "{gone} is still there");
    }
    assert!(all.contains("You reach me at [EMAIL_1] or [PHONE_1]."), "{all}");

    lengths_are_those_of_the_models_own_tokenizer(&connected, &card, &all);
    the_checklist_is_right(&shipped, parameters, &parts);
    shipped.build_again_offline();
    shipped.sign_and_verify();
}

fn lengths_are_those_of_the_models_own_tokenizer(connected: &Connected, card: &Value, parts: &str) {
    fs::write(connected.path().join("parts.json"), parts).unwrap();
    let counted = json_lines(&connected.python("tests/recipes/count_tokens.py", &[], &["model", "parts.json"]));
    let (tokens, counted) = (&card["lengths"]["tokens"], &counted[0]);
    assert_eq!((&tokens["most"], &tokens["total"]), (&counted["most"], &counted["total"]), "{card:#}");
}

/// Nothing fails; what is said about machine, stack, data, model and evaluation is what this recipe is.
fn the_checklist_is_right(shipped: &Shipped, parameters: u64, parts: &[Vec<Value>; 3]) {
    let checklist = Checklist::of(shipped, true);
    let passes = [
        ("gpu-memory", "of 34.4 GB main memory: weights"),
        ("main-memory", "34.4 GB of main memory"),
        ("storage", "of 100.0 GB"),
        ("network", "everything runs on one node"),
        ("driver", "nothing in the recipe computes on GPUs"),
        ("dependencies", "wheels finds what it requires, for Python 3.13"),
        ("training-stack", "all that Transformers is trained with is there and new enough"),
        ("platform-tags", "are for Python 3.13"),
        ("tracking", "it can report to tensorboard"),
        ("configuration", "nothing in it is known to break a training"),
        ("offline", "nothing in it reaches for a network"),
        ("tried", "a `[[test]]` runs in it"),
        ("secrets", "layers that were looked through"),
        ("data", "120 records, `conversation`, no duplicates, no personal data"),
        ("weights", &format!("{parameters} parameters")),
        ("tokenizer", "it has a tokenizer"),
        ("model-config", "llama: 3 layers of 96, 1024 tokens"),
        ("licences", "Apache-2.0 is allowed"),
        ("licences", "CC0-1.0 is allowed"),
        ("licence-terms", "no licence in the recipe is known to gate or forbid commercial use"),
        ("acceptance", "it is the `test_set`, and nothing is trained on what it is tested with"),
        ("acceptance", "loss <= 2"),
    ];
    for (rule, text) in passes {
        checklist.says(rule, "pass", text);
    }
    let [train, validation, test] = parts.each_ref().map(Vec::len);
    checklist.says("splits", "pass", &format!("test {test}, train {train}, validation {validation}"));
    // Nothing watches the machine, because no agent is in this file.
    assert_eq!(checklist.rules("warn"), ["monitoring"].into());
    assert_eq!(checklist.rules("fail"), [].into());
}

#[test]
fn a_model_whose_tokens_are_to_be_counted_must_be_in_the_recipe() {
    let counted = "tokenizer = { model = \"smollm\" }";
    for (instead, expected) in [
        ("tokenizer = { model = \"smolm\" }", "there is no model `smolm`"),
        ("tokenizer = {}", "has no `model`"),
        ("tokenizer = 3", "a path or `{ model = \"NAME\" }`"),
    ] {
        let shipped = Shipped::new("finetune-tiny");
        shipped.change(counted, instead);
        let said = fail_with(1, &mut shipped.command("lock"));
        assert!(said.contains(expected), "{said}");
    }
}
