//! Targets, jobs, steps and policies: what is written is read, and what is wrong is said where it stands.

use super::*;
use std::fs;

const GOOD: &str = r#"
[appliance]
name = "finetune"
version = "1"
serial = 1
arch = "x86_64"
[target]
gpu = "h100-80gb"
count = 8
driver = "570.124.06"
memory = "512GiB"
disk = "2TB"
[image.train]
layers = ["site"]
[layer.site]
files = [{ path = "site", to = "/srv" }]
[model.base]
path = "base"
[dataset.tickets]
path = "tickets.jsonl"
[job.sft]
image = "train"
train = { model = "base", datasets = ["tickets"], method = "qlora", rank = 32, length = 2048, checkpointing = true }
configs = ["sft.yaml"]
gpus = 2
endpoints = { tracking = 5000 }
[job.chat]
image = "train"
serve = { model = "base", length = 8192, concurrency = 16 }
[step."prep/pack"]
image = "train"
run = ["python3", "-m", "pack"]
[step."sft/tiny"]
image = "train"
needs = ["prep/pack"]
run = ["python3", "-m", "train"]
[licenses]
allow = ["Apache-2.0", "LicenseRef-llama3.1"]
exceptions = { libc6 = ["LGPL-2.1-or-later"] }
clarify = { tickets = "CC0-1.0" }
[secrets]
allow = ["/usr/share/doc/", "/etc/ssl/snakeoil.pem"]
[acceptance]
test_set = "tickets"
metrics = ["accuracy"]
baselines = ["base model"]
criteria = ["accuracy >= 0.9"]
"#;

fn load(text: &str) -> Result<Recipe, RecipeErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    fs::write(&path, text).unwrap();
    Recipe::load(&path)
}

/// The only problem of `GOOD` with `from` replaced by `to`, as `line: message | help`.
#[track_caller]
fn spoilt(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    let errors = load(&GOOD.replace(from, to)).unwrap_err();
    let [problem] = errors.problems() else { panic!("{errors:?}") };
    format!("{}: {} | {}", problem.line, problem.message, problem.help.as_deref().unwrap_or("-"))
}

#[test]
fn a_recipe_with_work_is_read_whole() {
    let recipe = load(GOOD).unwrap();
    let target = recipe.target.as_ref().unwrap();
    assert_eq!((target.gpu.unwrap().name, target.count, target.nodes), ("H100-80GB", 8, 1));
    assert_eq!((target.memory, target.disk), (Some(512 << 30), Some(2_000_000_000_000)));
    let Work::Train(training) = &recipe.jobs[0].work else { panic!("no training") };
    assert_eq!(training.method, Method::Qlora(Adapter { rank: 32, alpha: None, targets: Vec::new() }));
    assert_eq!((training.batch, training.length, training.precision), (1, 2048, Precision::Bf16));
    assert_eq!((recipe.jobs[0].gpus, recipe.jobs[0].configs[0].shown.as_str()), (Some(2), "sft.yaml"));
    let Work::Serve(serving) = &recipe.jobs[1].work else { panic!("no serving") };
    assert_eq!((serving.engine, serving.concurrency), (Engine::Vllm, 16));
    assert_eq!(recipe.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["prep/pack", "sft/tiny"]);
    let acceptance = recipe.acceptance.as_ref().unwrap();
    assert_eq!((acceptance.criteria[0].comparison, acceptance.criteria[0].bound.as_str()), (">=", "0.9"));
    assert_eq!(recipe.secrets.allow.len(), 2);
}

#[test]
fn endpoints_have_names_and_ports_of_their_own() {
    let recipe = load(GOOD).unwrap();
    let [(name, port)] = recipe.jobs[0].endpoints.iter().collect::<Vec<_>>()[..] else { panic!("one endpoint") };
    assert_eq!((name.as_str(), port.get()), ("tracking", 5000));
    let one = "{ tracking = 5000 }";
    assert!(spoilt(one, "{ Tracking = 5000 }").contains("the name of an endpoint is 1 to 32 of a-z"));
    assert!(spoilt(one, "{ tracking = 0 }").contains("`tracking` should be a port"));
    assert!(spoilt(one, "{ tracking = \"10.0.0.3:5000\" }").contains("a port, 1 to 65535"));
    assert!(spoilt(one, "{ tracking = 5000, store = 5000 }").contains("the port 5000 is taken"));
}

#[test]
fn targets_that_are_not_known_are_refused() {
    assert_eq!(spoilt("\"h100-80gb\"", "\"H100-80\""), "8: the GPU `H100-80` is not known | did you mean `H100-80GB`?");
    assert!(spoilt("gpu = \"h100-80gb\"\n", "").contains("counts GPUs and does not say which"));
    assert!(spoilt("\"570.124.06\"", "\"newest\"").starts_with("10: `driver = \"newest\"` is no version"));
    assert!(spoilt("\"512GiB\"", "\"512\"").contains("is no size | a whole number and a unit"));
    assert!(spoilt("\"2TB\"", "\"99999999999PB\"").contains("is no size"));
    assert!(spoilt("count = 8", "count = -1").contains("out of range"));
}

#[test]
fn learning_rates_are_numbers_above_zero_and_scales_belong_to_adapters() {
    let lora = "method = \"qlora\", rank = 32";
    let with = |keys: &str| format!("{lora}, {keys}");
    let Work::Train(training) =
        &load(&GOOD.replace(lora, &with("alpha = 64, learning_rate = 1e-4, epochs = 3"))).unwrap().jobs[0].work.clone()
    else {
        panic!("no training")
    };
    assert_eq!(training.learning_rate.as_ref().and_then(serde_json::Number::as_f64), Some(1e-4));
    assert_eq!(training.epochs, Some(3));
    assert!(matches!(&training.method, Method::Qlora(adapter) if adapter.alpha == Some(64)));
    assert!(spoilt(lora, &with("learning_rate = 0")).contains("`learning_rate = 0` is not above zero"));
    assert!(spoilt(lora, &with("learning_rate = nan")).contains("is not above zero"));
    assert!(spoilt(lora, &with("learning_rate = \"1e-4\"")).contains("should be a number"));
    assert!(spoilt(lora, "method = \"full\", alpha = 32").contains("full training has no adapters"));
}

#[test]
fn jobs_name_what_is_there_and_what_is_known() {
    assert!(
        spoilt("model = \"base\", datasets", "model = \"bass\", datasets")
            .ends_with("there is no model `bass` | did you mean `base`?")
    );
    assert!(spoilt("[\"tickets\"], method", "[\"ticket\"], method").contains("there is no data set `ticket`"));
    assert!(
        spoilt("[job.chat]\nimage = \"train\"", "[job.chat]\nimage = \"base\"").contains("there is no image `base`")
    );
    assert!(spoilt("method = \"qlora\"", "method = \"qlorra\"").contains("is not known | did you mean `qlora`?"));
    assert!(
        spoilt("method = \"qlora\", rank = 32", "method = \"full\", rank = 32")
            .contains("full training has no adapters")
    );
    assert!(spoilt("length = 2048", "lenght = 2048, length = 2048").contains("did you mean `length`?"));
    assert!(spoilt("length = 2048, ", "").contains("has no `length`"));
    assert!(spoilt("configs = [\"sft.yaml\"]", "configs = [\"../sft.yaml\"]").contains("is not allowed"));
    assert!(
        spoilt("configs = [\"sft.yaml\"]", "configs = [\"sft.py\"]").contains("cannot be read | a configuration is a")
    );
    assert!(
        spoilt("serve = {", "train = { model = \"base\", method = \"lora\", length = 1 }\nserve = {")
            .contains("both `train` and `serve`")
    );
}

#[test]
fn steps_come_after_what_they_need() {
    assert!(
        spoilt("needs = [\"prep/pack\"]", "needs = [\"prep/pakc\"]").ends_with("not there | did you mean `prep/pack`?")
    );
    assert!(
        spoilt("run = [\"python3\", \"-m\", \"pack\"]", "run = [\"a\"]\nneeds = [\"sft/tiny\"]")
            .contains("waits for itself")
    );
    assert!(spoilt("[step.\"sft/tiny\"]", "[step.\"sft//tiny\"]").contains("is not allowed"));
}

#[test]
fn licences_are_those_of_spdx() {
    assert!(spoilt("\"Apache-2.0\"", "\"Apache-2\"").contains("is no SPDX licence | did you mean `Apache-2.0`?"));
    assert!(spoilt("[\"LGPL-2.1-or-later\"]", "\"LGPL-2.1-or-later\"").contains("should be a list"));
    assert!(spoilt("\"CC0-1.0\"", "\"public domain\"").contains("is no SPDX expression"));
    assert!(spoilt("allow = [\"Apache-2.0\", \"LicenseRef-llama3.1\"]\n", "").contains("`[licenses]` has no `allow`"));
}

#[test]
fn secrets_are_allowed_by_absolute_paths_and_criteria_name_metrics() {
    assert!(spoilt("\"/usr/share/doc/\"", "\"usr/share/doc\"").contains("is no path"));
    assert!(spoilt("\"/usr/share/doc/\"", "\"/\"").contains("is no path"));
    assert!(spoilt("\"accuracy >= 0.9\"", "\"accuracy 0.9\"").contains("is no criterion"));
    assert!(
        spoilt("\"accuracy >= 0.9\"", "\"accurcy >= 0.9\"").contains("is none of `metrics` | did you mean `accuracy`?")
    );
    assert!(spoilt("test_set = \"tickets\"", "test_set = \"tests\"").contains("there is no data set `tests`"));
}
