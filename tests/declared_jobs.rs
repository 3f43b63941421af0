//! What a recipe says of jobs, models and data sets reaches the appliance.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use gap_handover::declared::{Declared, DeclaredKind};
use gapimage::{recipe::Recipe, report::jobs::document};
use serde_json::json;
use std::path::Path;

const RECIPE: &str = r#"
[appliance]
name = "x"
version = "1"
serial = 1
arch = "x86_64"
[image.train]
layers = ["base"]
[layer.base]
files = [{ path = "x", to = "/x" }]
[model.tiny]
path = "tiny"
[dataset.qa]
path = "qa.jsonl"
[job.tune]
image = "train"
run = ["gap-train", "run", "{job}"]
train = { model = "tiny", datasets = ["qa"], method = "lora", rank = 4, length = 64, targets = ["q_proj"] }
[job.again]
image = "train"
gpus = 0
endpoints = { tracking = 5000 }
train = { model = "tiny", method = "lora", alpha = 32, length = 64, learning_rate = 0.01, epochs = 12 }
[job.chat]
image = "train"
serve = { model = "tiny", length = 64, concurrency = 2, engine = "gap-serve" }
"#;

#[test]
fn what_the_recipe_says_of_jobs_reaches_the_appliance() {
    let recipe = Recipe::parse(RECIPE.to_owned(), Path::new("/x/r.toml")).unwrap();
    let declared = Declared::parse(&document(&recipe)).unwrap();
    assert_eq!(declared.model("tiny").map(|place| place.path.as_str()), Some("/models/tiny"));
    let tune = declared.job("tune").unwrap();
    assert_eq!((tune.kind, tune.gpus, tune.model.as_deref()), (DeclaredKind::Train, 0, Some("tiny")));
    assert_eq!(declared.dataset("qa").map(|place| place.path.as_str()), Some("/data/qa"));
    assert_eq!(tune.parameters["lora"], json!({"r": 4, "target_modules": ["q_proj"]}));
    assert_eq!(tune.parameters["max_length"], 64);
    assert_eq!(tune.parameters.get("learning_rate"), None, "the trainer's own");
    let again = declared.job("again").unwrap();
    assert_eq!((again.gpus, &again.parameters["lora"]), (0, &json!({"alpha": 32, "r": 16})));
    assert_eq!((&again.parameters["learning_rate"], &again.parameters["n_epochs"]), (&json!(0.01), &json!(12)));
    let endpoint = again.endpoints.iter().map(|(name, port)| (name.as_str(), port.get()));
    assert_eq!(endpoint.collect::<Vec<_>>(), [("tracking", 5000)]);
    let chat = declared.job("chat").unwrap();
    assert!(chat.endpoints.is_empty());
    assert_eq!(
        (chat.kind, chat.concurrency, chat.engine.as_deref()),
        (DeclaredKind::Serve, Some(2), Some("gap-serve"))
    );
    assert_eq!(document(&recipe), document(&recipe));
}

#[test]
fn a_job_of_the_processor_takes_no_gpu_of_a_machine_that_has_some() {
    let text = RECIPE.to_owned() + "[target]\ngpu = \"H100-80GB\"\ncount = 4\n";
    let recipe = Recipe::parse(text, Path::new("/x/r.toml")).unwrap();
    let declared = Declared::parse(&document(&recipe)).unwrap();
    let gpus = |name| declared.job(name).unwrap().gpus;
    assert_eq!((gpus("tune"), gpus("again")), (4, 0));
}
