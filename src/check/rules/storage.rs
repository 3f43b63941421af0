//! Storage is three to five times the models that are trained: checkpoints, logs and intermediate files.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{check::memory::gigabytes, recipe::Work};
use std::collections::BTreeSet;

pub(super) const RULE: Rule =
    Rule { group: Group::Infrastructure, name: "storage", otherwise: "no job of the recipe trains a model", apply };

const LEAST: u64 = 3;
const BUDGET: u64 = 5;
/// What checkpoints and data sets want besides, however small the model is.
const FLOOR: u64 = 50_000_000_000;

fn apply(facts: &Facts, findings: &mut Findings) {
    let trained: BTreeSet<&str> = facts
        .jobs
        .iter()
        .filter_map(|job| match &job.work {
            Work::Train(training) => Some(training.model.as_str()),
            Work::Serve(_) | Work::Other => None,
        })
        .collect();
    if trained.is_empty() {
        return;
    }
    let sizes: Option<Vec<u64>> = trained.iter().map(|name| facts.model(name)?.weight_bytes).collect();
    let Some(model) = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add)) else {
        let reason = "the size of a model that is trained is not known";
        findings.unresolved(Subject::RECIPE, reason, "lock the model: `gapimage lock`");
        return;
    };
    let (least, budget) = (model.saturating_mul(LEAST), model.saturating_mul(BUDGET));
    let wanted = format!("{} to {} for models of {}", gigabytes(least), gigabytes(budget), gigabytes(model));
    match facts.target.as_ref().and_then(|target| target.disk) {
        None => {
            let reason = format!("{wanted} are wanted, and `[target]` does not say how much there is");
            findings.unresolved(Subject::RECIPE, reason, "add `disk = \"1TB\"` to `[target]`");
        }
        Some(disk) if disk < least => {
            let reason = format!("{wanted} are wanted, and there are {}", gigabytes(disk));
            findings.fail(Subject::RECIPE, reason, format!("provide {}, on NVMe", gigabytes(budget)));
        }
        Some(disk) if disk < budget => {
            let reason = format!("{wanted} are wanted, and there are {}", gigabytes(disk));
            findings.warn(Subject::RECIPE, reason, "keep few checkpoints (`save_total_limit`)");
        }
        Some(disk) if disk < FLOOR => {
            let reason = format!(
                "{} are usual for checkpoints and data sets, and there are {}",
                gigabytes(FLOOR),
                gigabytes(disk)
            );
            findings.warn(Subject::RECIPE, reason, "keep few checkpoints (`save_total_limit`)");
        }
        Some(disk) => findings.pass(Subject::RECIPE, format!("{} of {}", gigabytes(budget), gigabytes(disk))),
    }
}
