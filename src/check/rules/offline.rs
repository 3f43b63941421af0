//! Nothing is told to reach for a network that is not there.

use super::{
    Facts, Findings, Group, Rule, Subject,
    configuration::{is_true, values},
};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "offline",
    otherwise: "no job or step of the recipe names a configuration",
    apply,
};

/// Options that name a model on the hub, or a path.
const MODELS: [&str; 6] = [
    "model_name_or_path",
    "base_model",
    "base_model_name_or_path",
    "tokenizer_name_or_path",
    "tokenizer_name",
    "model_name",
];
/// Options that upload.
const UPLOADS: [&str; 3] = ["push_to_hub", "push_dataset_to_hub", "hub_always_push"];
/// Environment variables that switch the hub on, against what the release sets.
const SWITCHES: [&str; 3] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"];

fn apply(facts: &Facts, findings: &mut Findings) {
    for image in &facts.images {
        let off =
            |name: &&&str| image.env.get(**name).is_some_and(|value| matches!(value.as_str(), "0" | "false" | "no"));
        if let Some(name) = SWITCHES.iter().find(|name| off(name)) {
            let reason = format!("`{name}` is switched off, and every load would wait for a hub that is not there");
            findings.fail(Subject::image(&image.name), reason, "take it out: the release sets it");
        }
    }
    for config in &facts.configs {
        let Ok(content) = &config.content else { continue };
        let subject = Subject::config(&config.owner, &config.path);
        if let Some(option) = UPLOADS.iter().find(|option| values(content, option).any(is_true)) {
            let reason = format!("`{option}` uploads to a hub, and there is no network");
            findings.fail(subject.clone(), reason, format!("write `{option}: false`"));
        }
        for name in missing_models(facts, content) {
            let reason = format!("it loads `{name}`, which would be downloaded: no model of the recipe is called so");
            findings.fail(subject.clone(), reason, "bake it in as `[model.NAME]`, or name its path in the image");
        }
        if findings.worst(&subject).is_none() {
            findings.pass(subject, "nothing in it reaches for a network");
        }
    }
}

/// Names on the hub that a configuration loads and the recipe does not have.
fn missing_models<'c>(facts: &Facts, content: &'c Value) -> Vec<&'c str> {
    let mut names: Vec<&str> = MODELS.iter().flat_map(|key| values(content, key)).filter_map(Value::as_str).collect();
    names.retain(|name| is_hub_name(name));
    names.retain(|name| !facts.models.iter().any(|model| model.hub.as_deref() == Some(*name)));
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether a text is the name of a repository on the hub and no path: `org/name`.
fn is_hub_name(text: &str) -> bool {
    let allowed = |part: &str| {
        let starts = part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        starts && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    text.split_once('/').is_some_and(|(owner, name)| allowed(owner) && allowed(name))
}
