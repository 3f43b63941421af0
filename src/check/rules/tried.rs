//! Images in which jobs and steps run are tried before anything crosses.

use super::{Facts, Findings, Group, Rule, Subject};
use std::collections::BTreeSet;

pub(super) const RULE: Rule =
    Rule { group: Group::Software, name: "tried", otherwise: "the recipe has no jobs and no steps", apply };

fn apply(facts: &Facts, findings: &mut Findings) {
    let jobs = facts.jobs.iter().map(|job| job.image.as_str());
    let used: BTreeSet<&str> = jobs.chain(facts.steps.iter().map(|step| step.image.as_str())).collect();
    for image in used {
        if facts.tested.contains(image) {
            findings.pass(Subject::image(image), "a `[[test]]` runs in it");
        } else {
            let remedy = "add a `[[test]]` with `imports` and a short run, and try it with `gapimage test`";
            findings.warn(Subject::image(image), "nothing is tried in it before it crosses", remedy);
        }
    }
}
