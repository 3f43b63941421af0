//! What serves is there.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::{facts::Image, memory::Shape},
    recipe::{Engine, Job, Work},
};

pub(super) const RULE: Rule =
    Rule { group: Group::Software, name: "serving", otherwise: "no job of the recipe serves a model", apply };

/// The version of a Python distribution as it is shown.
fn version(image: &Image, name: &str) -> Option<String> {
    image.python_package(name).map(|version| version.to_string())
}

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let (Work::Serve(serving), Some(image)) = (&job.work, facts.image(&job.image)) else { continue };
        let subject = Subject::job(&job.name);
        let engine = serving.engine.name();
        let found = match serving.engine {
            Engine::Vllm => version(image, "vllm"),
            Engine::Transformers => version(image, "transformers"),
            Engine::GapServe => image.programs.iter().any(|program| program == engine).then(|| facts.version.clone()),
            Engine::Other => {
                let reason = "what serves is none of the engines that are known";
                findings.unresolved(subject, reason, "try it: `gapimage test`");
                continue;
            }
        };
        match found {
            None => {
                let reason = format!("it serves with `{engine}`, which is not in the image `{}`", image.name);
                findings.fail(subject, reason, format!("add `{engine}` to the image, or choose another `engine`"));
            }
            Some(version) => {
                findings.pass(subject.clone(), format!("`{engine}` {version} is in the image `{}`", image.name));
                let model = facts.model(&serving.model);
                let Some(shape) = model.and_then(|model| Shape::from_config(model.config.as_ref()?).ok()) else {
                    continue;
                };
                if serving.engine == Engine::Vllm {
                    divided(findings, facts, job, &shape);
                }
                if let Some(context) = shape.context.filter(|context| serving.length > *context) {
                    let reason = format!(
                        "`length = {}` is longer than the {context} tokens that the model knows",
                        serving.length
                    );
                    findings.fail(subject, reason, format!("write `length = {context}` or less"));
                }
            }
        }
    }
}

/// vLLM gives each GPU as many attention heads as every other.
fn divided(findings: &mut Findings, facts: &Facts, job: &Job, shape: &Shape) {
    let Some(target) = facts.target.as_ref().filter(|target| target.gpu.is_some()) else { return };
    let gpus = u64::from(job.gpus.unwrap_or(target.count)).max(1);
    if !shape.heads.is_multiple_of(gpus) {
        let fitting = (1..gpus).rev().find(|fewer| shape.heads.is_multiple_of(*fewer)).unwrap_or(1);
        let reason = format!("vLLM divides the model's {} attention heads evenly, and {gpus} GPUs do not", shape.heads);
        findings.fail(Subject::job(&job.name), reason, format!("write `gpus = {fitting}`"));
    }
}
