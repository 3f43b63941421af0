//! Main memory is enough for what trains.

use super::{
    Facts, Findings, Group, Rule, Subject,
    gpu_memory::{Place, shape_of},
};
use crate::{
    check::memory::gigabytes,
    recipe::{Job, Target, Trainer, Training, Work},
};

pub(super) const RULE: Rule =
    Rule { group: Group::Infrastructure, name: "main-memory", otherwise: "no job of the recipe trains a model", apply };

/// The least that is asked for where Python trains; large models want more.
const LEAST: u64 = 16_000_000_000;
/// What system, agent and program take beside what the appliance's own trainer counts.
const SYSTEM: u64 = 512 << 20;

fn apply(facts: &Facts, findings: &mut Findings) {
    let Some(target) = &facts.target else {
        if trainings(facts).next().is_some() {
            let reason = "the recipe does not say on which machine it runs";
            findings.unresolved(Subject::RECIPE, reason, "add `[target]` with `memory = \"64GiB\"` to the recipe");
        }
        return;
    };
    if trainings(facts).any(|(_, training)| !is_own(training)) {
        python(facts, target, findings);
    }
    for (job, _) in trainings(facts).filter(|(_, training)| is_own(training)) {
        own(facts, job, target, findings);
    }
}

fn trainings(facts: &Facts) -> impl Iterator<Item = (&Job, &Training)> {
    facts.jobs.iter().filter_map(|job| match &job.work {
        Work::Train(training) => Some((job, training)),
        Work::Serve(_) | Work::Other => None,
    })
}

fn is_own(training: &Training) -> bool {
    training.trainer == Trainer::GapTrain
}

/// What the Trainer of Transformers and its like ask for.
fn python(facts: &Facts, target: &Target, findings: &mut Findings) {
    match target.memory {
        None => unknown(findings, Subject::RECIPE, LEAST),
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

/// The appliance's own trainer maps weights instead of reading them, and says itself what it needs.
fn own(facts: &Facts, job: &Job, target: &Target, findings: &mut Findings) {
    let subject = Subject::job(&job.name);
    let wanted = match wanted(facts, job, target) {
        Ok(wanted) => wanted,
        Err((reason, remedy)) => return findings.unresolved(subject, reason, remedy),
    };
    match target.memory {
        None => unknown(findings, subject, wanted),
        Some(memory) if memory < wanted => {
            let reason = format!("{} are wanted, and there are {}", gigabytes(wanted), gigabytes(memory));
            findings.warn(subject, reason, "provide more, or let the job take less: smaller batches, shorter examples");
        }
        Some(memory) => findings.pass(subject, format!("{} of {}", gigabytes(wanted), gigabytes(memory))),
    }
}

/// Bytes of main memory that a training by the appliance's own trainer wants: all that it holds, where no GPU holds it.
fn wanted(facts: &Facts, job: &Job, target: &Target) -> Result<u64, (String, String)> {
    let Work::Train(training) = &job.work else { return Ok(SYSTEM) };
    if target.gpu.is_some() && !job.is_for_processor() {
        return Ok(SYSTEM);
    }
    let shape = shape_of(facts, &training.model)?;
    Ok(Place::new(facts, job, &shape, target).needed().saturating_add(SYSTEM))
}

fn unknown(findings: &mut Findings, subject: Subject, wanted: u64) {
    let reason = format!("{} are wanted, and `[target]` does not say how much there is", gigabytes(wanted));
    findings.unresolved(subject, reason, "add `memory = \"64GiB\"` to `[target]`");
}

/// Bytes of the largest weights that Python loads.
fn largest(facts: &Facts) -> u64 {
    let loaded = trainings(facts).filter(|(_, training)| !is_own(training));
    loaded.filter_map(|(_, training)| facts.model(&training.model)?.weight_bytes).max().unwrap_or(0)
}
