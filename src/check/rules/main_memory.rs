//! Main memory is enough for the Trainer of Transformers.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{check::memory::gigabytes, recipe::Work};

pub(super) const RULE: Rule =
    Rule { group: Group::Infrastructure, name: "main-memory", otherwise: "no job of the recipe trains a model", apply };

/// The least that is asked for; large models want more.
const LEAST: u64 = 16_000_000_000;

fn apply(facts: &Facts, findings: &mut Findings) {
    let trains = facts.jobs.iter().any(|job| matches!(job.work, Work::Train(_)));
    let Some(target) = facts.target.as_ref().filter(|_| trains) else { return };
    match target.memory {
        None => {
            let reason = format!("{} are wanted, and `[target]` does not say how much there is", gigabytes(LEAST));
            findings.unresolved(Subject::RECIPE, reason, "add `memory = \"64GiB\"` to `[target]`");
        }
        Some(memory) if memory < LEAST => {
            let reason = format!("{} are wanted, and there are {}", gigabytes(LEAST), gigabytes(memory));
            findings.warn(Subject::RECIPE, reason, "fewer and smaller workers that load data");
        }
        Some(memory) if memory < largest(facts) => {
            let reason = format!(
                "weights of {} are loaded through {} of main memory",
                gigabytes(largest(facts)),
                gigabytes(memory)
            );
            findings.warn(Subject::RECIPE, reason, "load them shard by shard (`low_cpu_mem_usage`), or provide more");
        }
        Some(memory) => findings.pass(Subject::RECIPE, format!("{} of main memory", gigabytes(memory))),
    }
}

/// Bytes of the largest weights that are trained.
fn largest(facts: &Facts) -> u64 {
    let trained = facts.jobs.iter().filter_map(|job| match &job.work {
        Work::Train(training) => facts.model(&training.model)?.weight_bytes,
        Work::Serve(_) | Work::Other => None,
    });
    trained.max().unwrap_or(0)
}
