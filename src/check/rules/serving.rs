//! What serves is there.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::{facts::Image, memory::Shape},
    recipe::{Engine, Work},
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
                let context = model.and_then(|model| Shape::from_config(model.config.as_ref()?).ok()?.context);
                if let Some(context) = context.filter(|context| serving.length > *context) {
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
