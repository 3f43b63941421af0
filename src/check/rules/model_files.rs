//! Models are whole: weights, tokenizer, configuration. One rule for each, by what looking at their files found.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::{
    Status,
    facts::{Model, ModelPart},
    memory::Shape,
};

pub(super) const WEIGHTS: Rule =
    Rule { group: Group::Models, name: "weights", otherwise: "the recipe has no model", apply: weights };
pub(super) const TOKENIZER: Rule =
    Rule { group: Group::Models, name: "tokenizer", otherwise: "the recipe has no model", apply: tokenizer };
pub(super) const CONFIGURATION: Rule =
    Rule { group: Group::Models, name: "model-config", otherwise: "the recipe has no model", apply: configuration };

const LOCK: &str = "lock the model: `gapimage lock`";

fn weights(facts: &Facts, findings: &mut Findings) {
    for model in &facts.models {
        let subject = Subject::model(&model.name);
        if told(findings, model, ModelPart::Weights) {
            let count = model.parameters.map_or_else(String::new, |count| format!(": {count} parameters"));
            findings.pass(subject, format!("they are complete{count}"));
        }
    }
}

fn tokenizer(facts: &Facts, findings: &mut Findings) {
    for model in &facts.models {
        if told(findings, model, ModelPart::Tokenizer) {
            findings.pass(Subject::model(&model.name), "it has a tokenizer");
        }
    }
}

fn configuration(facts: &Facts, findings: &mut Findings) {
    for model in &facts.models {
        let subject = Subject::model(&model.name);
        if !told(findings, model, ModelPart::Configuration) {
            continue;
        }
        match model.config.as_ref().map(Shape::from_config) {
            None => findings.pass(subject, "it needs no config.json"),
            Some(Ok(shape)) => findings.pass(subject, described(model, &shape)),
            Some(Err(error)) => {
                let reason = format!("{error}, so its memory cannot be computed");
                findings.unresolved(subject, reason, "compute it by hand, and test");
            }
        }
    }
}

/// Notes what was found of a part of a model; whether nothing stands against it.
fn told(findings: &mut Findings, model: &Model, part: ModelPart) -> bool {
    let subject = Subject::model(&model.name);
    let Some(found) = &model.findings else {
        findings.unresolved(subject, "its files are not known", LOCK);
        return false;
    };
    let mut is_good = true;
    for finding in found.iter().filter(|finding| finding.part == part) {
        is_good &= finding.status == Status::Warn;
        let (what, remedy) = (finding.what.clone(), finding.remedy.clone());
        match finding.status {
            Status::Fail => findings.fail(subject.clone(), what, remedy),
            Status::Unresolved => findings.unresolved(subject.clone(), what, remedy),
            Status::Pass | Status::Warn => findings.warn(subject.clone(), what, remedy),
        }
    }
    is_good
}

fn described(model: &Model, shape: &Shape) -> String {
    let kind = model.config.as_ref().and_then(|config| config.get("model_type")?.as_str()).unwrap_or("transformer");
    format!("{kind}: {} layers of {}, {} tokens", shape.layers, shape.hidden, shape.vocabulary)
}
