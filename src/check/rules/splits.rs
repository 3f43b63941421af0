//! Data sets that are trained on are split.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::recipe::Work;
use std::collections::BTreeSet;

pub(super) const RULE: Rule =
    Rule { group: Group::Data, name: "splits", otherwise: "no job of the recipe trains on a data set", apply };

const PARTS: [&str; 3] = ["train", "validation", "test"];

fn apply(facts: &Facts, findings: &mut Findings) {
    let trained: BTreeSet<&String> = facts
        .jobs
        .iter()
        .filter_map(|job| match &job.work {
            Work::Train(training) => Some(&training.datasets),
            Work::Serve(_) | Work::Other => None,
        })
        .flatten()
        .collect();
    for name in trained {
        let Some(card) = facts.dataset(name).and_then(|dataset| dataset.card.as_ref()) else { continue };
        let subject = Subject::dataset(name);
        let missing: Vec<&str> =
            PARTS.into_iter().filter(|part| card.splits.get(*part).is_none_or(|count| *count == 0)).collect();
        let shown: Vec<String> = card.splits.iter().map(|(part, count)| format!("{part} {count}")).collect();
        if missing.contains(&"train") {
            findings.fail(subject, "no part of it is to be trained on", "split it: 80/10/10, or 90/5/5 below 10,000");
        } else if missing.is_empty() {
            findings.pass(subject, shown.join(", "));
        } else {
            let reason = format!("it has no part for {}", missing.join(" and "));
            findings.warn(subject, reason, "split it: 80/10/10, or 90/5/5 below 10,000");
        }
    }
}
