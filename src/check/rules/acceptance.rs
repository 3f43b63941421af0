//! It is agreed by what the outcome is judged: test set, metrics, baselines, criteria.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::recipe::{Acceptance, Work};

pub(super) const RULE: Rule = Rule {
    group: Group::Evaluation,
    name: "acceptance",
    otherwise: "no job of the recipe trains a model, so there is no outcome to judge",
    apply,
};

fn apply(facts: &Facts, findings: &mut Findings) {
    if !facts.jobs.iter().any(|job| matches!(job.work, Work::Train(_))) && facts.acceptance.is_none() {
        return;
    }
    let Some(acceptance) = &facts.acceptance else {
        let remedy = "add `[acceptance]` with `test_set`, `metrics`, `baselines` and `criteria` to the recipe";
        findings.warn(Subject::RECIPE, "the recipe does not say by what the outcome is judged", remedy);
        return;
    };
    test_set(facts, acceptance, findings);
    let parts = [
        ("metrics", acceptance.metrics.join(", "), "what is measured", "[\"accuracy\"]"),
        ("baselines", acceptance.baselines.join(", "), "what it is compared with", "[\"base model\"]"),
        ("criteria", criteria(acceptance), "what must hold", "[\"accuracy >= 0.9\"]"),
    ];
    for (key, value, what, example) in parts {
        if value.is_empty() {
            findings.warn(
                Subject::RECIPE,
                format!("`{key}` of `[acceptance]` is empty: {what}"),
                format!("add `{key} = {example}`"),
            );
        } else {
            findings.pass(Subject::RECIPE, format!("{key}: {value}"));
        }
    }
}

fn test_set(facts: &Facts, acceptance: &Acceptance, findings: &mut Findings) {
    let Some(name) = &acceptance.test_set else {
        let reason = "no `test_set` in `[acceptance]`";
        findings.warn(Subject::RECIPE, reason, "hold records of your own domain back, and name that data set");
        return;
    };
    let subject = Subject::dataset(name);
    let Some(dataset) = facts.dataset(name) else {
        let reason = "it is the `test_set`, and the recipe has no such data set";
        findings.fail(subject, reason, format!("add `[dataset.{name}]`, or correct the name"));
        return;
    };
    let trained_on = facts.jobs.iter().any(|job| match &job.work {
        Work::Train(training) => training.datasets.contains(name),
        Work::Serve(_) | Work::Other => false,
    });
    let held_back = dataset.card.as_ref().map(|card| card.splits.get("test").is_some_and(|count| *count > 0));
    match (trained_on, held_back) {
        (true, None) => {
            let reason = "it is the `test_set`, a job trains on it, and whether a part of it is held back is not known";
            findings.unresolved(subject, reason, "build the recipe, and check it again");
        }
        (true, Some(false)) => {
            let reason = "it is the `test_set`, a job trains on it, and no part of it is held back";
            findings.fail(subject, reason, "split it, or hold another data set back");
        }
        _ => findings.pass(subject, "it is the `test_set`, and nothing is trained on what it is tested with"),
    }
}

fn criteria(acceptance: &Acceptance) -> String {
    let shown: Vec<String> = acceptance
        .criteria
        .iter()
        .map(|criterion| format!("{} {} {}", criterion.metric, criterion.comparison, criterion.bound))
        .collect();
    shown.join(", ")
}
