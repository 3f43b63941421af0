//! GPU memory is enough for each model and what is done with it; where it is not, what would be.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::memory::{self, Estimate, ServingPlan, Shape, TrainingPlan, gigabytes, usable},
    recipe::{Adapter, Gpu, Job, Method, Optimizer, Serving, Sharding, Target, Training, Work},
};

pub(super) const RULE: Rule = Rule {
    group: Group::Infrastructure,
    name: "gpu-memory",
    otherwise: "no job of the recipe trains or serves a model",
    apply,
};

/// Of how much of a GPU's memory a training may make use, in hundredths: above, fragments of freed memory break it.
const COMFORTABLE: u64 = 90;
/// Most changes that are suggested.
const SUGGESTIONS: usize = 3;

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let model = match &job.work {
            Work::Train(training) => &training.model,
            Work::Serve(serving) => &serving.model,
            Work::Other => continue,
        };
        let subject = Subject::job(&job.name);
        let shape = match shape_of(facts, model) {
            Ok(shape) => shape,
            Err((reason, remedy)) => {
                findings.unresolved(subject, reason, remedy);
                continue;
            }
        };
        let Some(target) = &facts.target else {
            let remedy = "add `[target]` with `gpu` and `count` to the recipe";
            findings.unresolved(subject, "the recipe does not say on which machine it runs", remedy);
            continue;
        };
        let Some(gpu) = target.gpu else {
            on_a_processor(findings, subject, target, &estimate(job, &shape, 1));
            continue;
        };
        judge(findings, job, &shape, target, &gpu);
    }
}

fn shape_of(facts: &Facts, name: &str) -> Result<Shape, (String, String)> {
    let model = facts.model(name).ok_or_else(|| {
        (format!("the recipe has no model `{name}`"), format!("add `[model.{name}]`, or correct the name"))
    })?;
    let locked = || "lock the model: `gapimage lock`".to_owned();
    let config = model.config.as_ref().ok_or_else(|| (format!("nothing is known of the model `{name}`"), locked()))?;
    let shape = Shape::from_config(config).map_err(|error| {
        (format!("the size of the model `{name}` is not known: {error}"), "compute it by hand, and test".to_owned())
    })?;
    Ok(shape.with_weights(model.parameters, model.weight_bytes))
}

/// A machine without GPUs computes in its main memory.
fn on_a_processor(findings: &mut Findings, subject: Subject, target: &Target, estimate: &Estimate) {
    let needed = estimate.tensors();
    match target.memory {
        None => {
            let reason = format!(
                "{} of main memory are needed, and `[target]` does not say how much there is",
                gigabytes(needed)
            );
            findings.unresolved(subject, reason, "add `memory = \"64GiB\"` to `[target]`");
        }
        Some(memory) if memory < needed => {
            let reason =
                format!("{} of main memory are needed, and there are {}", gigabytes(needed), gigabytes(memory));
            findings.fail(subject, reason, "more memory, a smaller batch or shorter sequences");
        }
        Some(memory) => {
            findings.pass(subject, format!("{} of {} main memory: {estimate}", gigabytes(needed), gigabytes(memory)));
        }
    }
}

fn judge(findings: &mut Findings, job: &Job, shape: &Shape, target: &Target, gpu: &Gpu) {
    let subject = Subject::job(&job.name);
    let gpus = job.gpus.unwrap_or(target.count);
    if gpus > target.count {
        let reason = format!("it takes {gpus} GPUs, and each node has {}", target.count);
        findings.fail(subject, reason, "take fewer, or correct `count` of `[target]`");
        return;
    }
    let estimate = estimate(job, shape, all_gpus(job, target, gpus));
    let (needed, share) = (estimate.total(), share(&job.work));
    let room = gpu.memory / 100 * share;
    let on = if gpus == 1 { gpu.name.to_owned() } else { format!("each of {gpus} {}", gpu.name) };
    let sum = format!("{} of {} on {on}: {estimate}", gigabytes(needed), gigabytes(gpu.memory));
    if needed > room {
        let remedy = remedy(job, shape, target, gpu);
        let reserved = if share < 100 { format!(" (the engine takes {share} % of it)") } else { String::new() };
        findings.fail(subject, format!("it does not fit: {sum}{reserved}"), remedy);
    } else if matches!(job.work, Work::Train(_)) && needed > gpu.memory / 100 * COMFORTABLE {
        let reason = format!("it fits with less than {} % to spare: {sum}", 100 - COMFORTABLE);
        findings.warn(subject, reason, remedy(job, shape, target, gpu));
    } else {
        findings.pass(subject, sum);
    }
}

/// The GPUs among which a job's work is divided: those of one node for serving, those of all for training.
fn all_gpus(job: &Job, target: &Target, gpus: u32) -> u64 {
    match job.work {
        Work::Train(_) => u64::from(gpus) * u64::from(target.nodes),
        Work::Serve(_) | Work::Other => u64::from(gpus),
    }
}

fn estimate(job: &Job, shape: &Shape, gpus: u64) -> Estimate {
    match &job.work {
        Work::Train(training) => memory::training(shape, &TrainingPlan { training: training.clone(), gpus }),
        Work::Serve(serving) => memory::serving(shape, &ServingPlan { serving: serving.clone(), gpus }),
        Work::Other => Estimate::default(),
    }
}

const fn share(work: &Work) -> u64 {
    match work {
        Work::Serve(serving) => usable(serving.engine),
        Work::Train(_) | Work::Other => 100,
    }
}

/// What would fit, by the same formulas.
fn remedy(job: &Job, shape: &Shape, target: &Target, gpu: &Gpu) -> String {
    let gpus = job.gpus.unwrap_or(target.count);
    let room = gpu.memory / 100 * share(&job.work).min(COMFORTABLE);
    let mut fitting = Vec::new();
    for (what, changed, gpus) in changes(job, gpus) {
        let job = Job { work: changed, ..job.clone() };
        let needed = estimate(&job, shape, all_gpus(&job, target, gpus)).total();
        if needed <= room {
            fitting.push(format!("{what} ({})", gigabytes(needed)));
        }
        if fitting.len() == SUGGESTIONS {
            break;
        }
    }
    match fitting.is_empty() {
        true => format!("nothing that was tried fits on a {}: take a smaller model or a larger GPU", gpu.name),
        false => format!("what would fit: {}", fitting.join("; or ")),
    }
}

/// Changes to a job, the least intrusive first, each with the number of GPUs on a node.
fn changes(job: &Job, gpus: u32) -> Vec<(String, Work, u32)> {
    match &job.work {
        Work::Train(training) => training_changes(training, gpus),
        Work::Serve(serving) => serving_changes(serving, gpus),
        Work::Other => Vec::new(),
    }
}

fn training_changes(training: &Training, gpus: u32) -> Vec<(String, Work, u32)> {
    let mut changes = Vec::new();
    let mut add = |what: String, changed: Training, gpus: u32| changes.push((what, Work::Train(changed), gpus));
    let checkpointed = Training { checkpointing: true, ..training.clone() };
    if !training.checkpointing {
        add("`checkpointing = true`".to_owned(), checkpointed.clone(), gpus);
    }
    for batch in halves(training.batch) {
        let accumulate = training.accumulate * (training.batch / batch);
        let smaller = Training { batch, accumulate, ..checkpointed.clone() };
        add(format!("`checkpointing = true`, `batch = {batch}`, `accumulate = {accumulate}`"), smaller, gpus);
    }
    if gpus > 1 && !matches!(training.sharding, Sharding::Zero3 | Sharding::Fsdp) {
        let sharded = Training { sharding: Sharding::Fsdp, ..checkpointed.clone() };
        add("`checkpointing = true`, `sharding = \"fsdp\"`".to_owned(), sharded, gpus);
    }
    if training.method == Method::Full && training.optimizer == Optimizer::AdamW {
        let eight = Training { optimizer: Optimizer::AdamW8bit, batch: 1, ..checkpointed.clone() };
        add("`checkpointing = true`, `batch = 1`, `optimizer = \"adamw-8bit\"`".to_owned(), eight, gpus);
    }
    let adapter = Adapter { rank: 16, targets: Vec::new() };
    let least = Training { batch: 1, ..checkpointed.clone() };
    if training.method == Method::Full {
        let lora = Training { method: Method::Lora(adapter.clone()), ..least.clone() };
        add("`method = \"lora\"`, `checkpointing = true`, `batch = 1`".to_owned(), lora, gpus);
    }
    if !matches!(training.method, Method::Qlora(_)) {
        let qlora = Training { method: Method::Qlora(adapter), ..least };
        add("`method = \"qlora\"`, `checkpointing = true`, `batch = 1`".to_owned(), qlora, gpus);
    }
    for more in doubles(gpus) {
        let sharded = Training { sharding: Sharding::Fsdp, ..checkpointed.clone() };
        add(format!("{more} GPUs with `sharding = \"fsdp\"` and `checkpointing = true`"), sharded, more);
    }
    changes
}

fn serving_changes(serving: &Serving, gpus: u32) -> Vec<(String, Work, u32)> {
    let mut changes = Vec::new();
    for concurrency in halves(serving.concurrency) {
        let fewer = Serving { concurrency, ..serving.clone() };
        changes.push((format!("`concurrency = {concurrency}`"), Work::Serve(fewer), gpus));
    }
    for length in halves(serving.length).into_iter().filter(|&length| length >= 512) {
        let shorter = Serving { length, concurrency: 1, ..serving.clone() };
        changes.push((format!("`length = {length}`, `concurrency = 1`"), Work::Serve(shorter), gpus));
    }
    for more in doubles(gpus) {
        changes.push((format!("{more} GPUs"), Work::Serve(serving.clone()), more));
    }
    changes
}

fn halves(number: u64) -> Vec<u64> {
    std::iter::successors(Some(number / 2), |half| Some(half / 2)).take_while(|half| *half > 0).collect()
}

fn doubles(number: u32) -> Vec<u32> {
    [2, 4, 8, 16, 32, 64].into_iter().filter(|&more| more > number).collect()
}
