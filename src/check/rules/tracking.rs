//! Experiments are tracked, without a network.

use super::{Facts, Findings, Group, Rule, Subject, configuration::values};
use crate::recipe::{Trainer, Work};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "tracking",
    otherwise: "no job of the recipe trains with Transformers",
    apply,
};

/// Trackers by the name that `report_to` has for them, and their distributions.
const TRACKERS: [(&str, &str); 4] =
    [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb"), ("trackio", "trackio")];

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let (Work::Train(training), Some(image)) = (&job.work, facts.image(&job.image)) else { continue };
        if !matches!(training.trainer, Trainer::Transformers | Trainer::Trl) {
            continue;
        }
        let subject = Subject::job(&job.name);
        let owner = format!("job {}", job.name);
        let reported: Vec<String> =
            facts.configs_of(&owner).flat_map(|(_, content)| values(content, "report_to")).flat_map(names).collect();
        for (name, wheel) in TRACKERS {
            if reported.iter().any(|reported| reported == name) && image.python_package(wheel).is_none() {
                let reason = format!("it reports to `{name}`, which is not in the image `{}`", image.name);
                findings.fail(subject.clone(), reason, format!("add `{wheel}` to the requirements"));
            }
        }
        let present: Vec<&str> =
            TRACKERS.iter().filter(|(_, wheel)| image.python_package(wheel).is_some()).map(|(name, _)| *name).collect();
        match (findings.worst(&subject), present.as_slice()) {
            (Some(_), _) => {}
            (None, []) => {
                let reason = format!("the image `{}` holds nothing that tracks experiments", image.name);
                findings.warn(subject, reason, "add `tensorboard` or `mlflow` to the requirements");
            }
            (None, present) => findings.pass(subject, format!("it can report to {}", present.join(", "))),
        }
    }
}

fn names(value: &Value) -> Vec<String> {
    let one = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}
