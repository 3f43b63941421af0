//! Memory is enough for each model and what is done with it; where it is not, what would be.

use super::{Facts, Findings, Group, Rule, Subject, configuration::is_set, remedies::suggestions};
use crate::{
    check::{
        cuda::vllm_build,
        memory::{self, Estimate, ServingPlan, Shape, TrainingPlan, gigabytes},
    },
    recipe::{Engine, Gpu, Job, Serving, Target, Work},
};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    group: Group::Infrastructure,
    name: "gpu-memory",
    otherwise: "no job of the recipe trains or serves a model",
    apply,
};

/// Of how much of a memory a training may make use, in hundredths: above, fragments of freed memory break it.
const COMFORTABLE: u64 = 90;
/// Of how much of a GPU's memory vLLM makes use where its release is not known, in hundredths.
const VLLM_SHARE: u64 = 90;
/// Option of Transformers that quantises the maxima of 4-bit weights in turn.
const DOUBLE: &str = "bnb_4bit_use_double_quant";
/// What a job file of the appliance's own trainer says for the same under `quantization`.
const OWN_DOUBLE: &str = "nf4-double-quant";

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
        judge(findings, subject, &Place::new(facts, job, &shape, target));
    }
}

pub(super) fn shape_of(facts: &Facts, name: &str) -> Result<Shape, (String, String)> {
    let model = facts.model(name).ok_or_else(|| {
        (format!("the recipe has no model `{name}`"), format!("add `[model.{name}]`, or correct the name"))
    })?;
    let unknown = || {
        let remedy = "lock the model: `gapimage lock`; build it, if a program makes it";
        (format!("nothing is known of the model `{name}`"), remedy.to_owned())
    };
    let config = model.config.as_ref().ok_or_else(unknown)?;
    let shape = Shape::from_config(config).map_err(|error| {
        (format!("the size of the model `{name}` is not known: {error}"), "compute it by hand, and test".to_owned())
    })?;
    Ok(shape.with_weights(model.parameters, model.weight_bytes))
}

/// A job with a model on a machine: all that its memory follows from.
#[derive(Debug, Clone)]
pub(super) struct Place<'f> {
    pub(super) job: Job,
    pub(super) target: Target,
    pub(super) shape: &'f Shape,
    pub(super) double_quantized: bool,
    pub(super) vllm_share: u64,
}

impl<'f> Place<'f> {
    pub(super) fn new(facts: &Facts, job: &Job, shape: &'f Shape, target: &Target) -> Self {
        let owner = format!("job {}", job.name);
        let double_quantized = facts.configs_of(&owner).any(|(_, config)| {
            is_set(config, DOUBLE, &Value::Bool(true)) || is_set(config, "quantization", &OWN_DOUBLE.into())
        });
        let vllm = facts.image(&job.image).and_then(|image| vllm_build(&image.wheel("vllm")?.version));
        Self {
            job: job.clone(),
            target: if job.is_for_processor() {
                Target { gpu: None, count: 0, ..target.clone() }
            } else {
                target.clone()
            },
            shape,
            double_quantized,
            vllm_share: vllm.map_or(VLLM_SHARE, |build| build.share),
        }
    }

    /// GPUs on each node; 1 where the processor computes.
    pub(super) fn gpus(&self) -> u32 {
        if self.target.gpu.is_some() { self.job.gpus.unwrap_or(self.target.count) } else { 1 }
    }

    /// The GPUs among which the work is divided: those of one node for serving, those of all for training. The
    /// appliance's own programs do not divide it.
    fn divided_among(&self) -> u64 {
        match &self.job.work {
            Work::Train(_) if self.target.gpu.is_some() => u64::from(self.gpus()) * u64::from(self.target.nodes),
            Work::Serve(Serving { engine: Engine::GapServe, .. }) => 1,
            Work::Train(_) | Work::Serve(_) | Work::Other => u64::from(self.gpus()),
        }
    }

    /// What it takes on each GPU.
    pub(super) fn estimate(&self) -> Estimate {
        let gpus = self.divided_among();
        match &self.job.work {
            Work::Train(training) => {
                let double_quantized = self.double_quantized;
                let on_processor = self.target.gpu.is_none();
                let training = training.clone();
                memory::training(self.shape, &TrainingPlan { training, gpus, double_quantized, on_processor })
            }
            Work::Serve(serving) => {
                let told = option(&self.job.run, "--max-num-batched-tokens").and_then(|text| text.parse().ok());
                let pass = told.unwrap_or_else(|| memory::pass(serving.engine, self.target.gpu.as_ref()));
                memory::serving(self.shape, &ServingPlan { serving: serving.clone(), gpus, pass })
            }
            Work::Other => Estimate::default(),
        }
    }

    /// Bytes that are needed: CUDA itself counts on GPUs only.
    pub(super) fn needed(&self) -> u64 {
        let estimate = self.estimate();
        if self.target.gpu.is_some() { estimate.total() } else { estimate.tensors() }
    }

    /// Bytes that there are for it, and the share of the memory that they are; `None` where that is not known.
    fn room(&self) -> Option<(u64, u64)> {
        let whole = match &self.target.gpu {
            Some(gpu) => gpu.memory,
            None => self.target.memory?,
        };
        let share = match &self.job.work {
            Work::Serve(Serving { engine: Engine::Vllm, .. }) => {
                let told = option(&self.job.run, "--gpu-memory-utilization").and_then(hundredths);
                told.unwrap_or(self.vllm_share)
            }
            Work::Train(_) | Work::Serve(_) | Work::Other => 100,
        };
        Some((whole / 100 * share, share))
    }

    /// Whether it fits, with something to spare where it trains.
    pub(super) fn fits(&self) -> bool {
        let Some((room, share)) = self.room() else { return false };
        let spared = if matches!(self.job.work, Work::Train(_)) { COMFORTABLE } else { share };
        self.needed() <= room / share.max(1) * spared.min(share)
    }

    /// Whether the attention heads of the model can be divided among the GPUs as vLLM does it.
    pub(super) fn divides(&self) -> bool {
        self.shape.heads.is_multiple_of(self.divided_among().max(1))
    }
}

/// The value of an option of a command: `--name value` or `--name=value`.
fn option<'r>(run: &'r [String], name: &str) -> Option<&'r str> {
    run.iter().enumerate().find_map(|(index, word)| match word.strip_prefix(name)? {
        "" => run.get(index + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

/// A share such as `0.85`, in hundredths.
fn hundredths(text: &str) -> Option<u64> {
    let share: f64 = text.parse().ok()?;
    // Between nothing and all of it: at most three digits.
    (share > 0.0 && share <= 1.0).then_some((share * 100.0).round() as u64)
}

fn judge(findings: &mut Findings, subject: Subject, place: &Place<'_>) {
    let (gpus, target) = (place.gpus(), &place.target);
    if let Some(gpu) = &target.gpu
        && gpus > target.count
    {
        let reason = format!("it takes {gpus} GPUs, and each node has {}", target.count);
        findings.fail(subject, reason, format!("take fewer {}, or correct `count` of `[target]`", gpu.name));
        return;
    }
    let (needed, estimate) = (place.needed(), place.estimate());
    let Some((room, share)) = place.room() else {
        let reason =
            format!("{} of main memory are needed, and `[target]` does not say how much there is", gigabytes(needed));
        findings.unresolved(subject, reason, "add `memory = \"64GiB\"` to `[target]`");
        return;
    };
    let sum = match &target.gpu {
        Some(gpu) => format!("{} of {} on {}: {estimate}", gigabytes(needed), gigabytes(gpu.memory), on(gpu, gpus)),
        None => {
            let parts = Estimate { context: 0, ..estimate };
            format!("{} of {} main memory: {parts}", gigabytes(needed), gigabytes(room))
        }
    };
    if needed > room {
        let reserved = if share < 100 { format!(" (the engine takes {share} % of it)") } else { String::new() };
        findings.fail(subject, format!("it does not fit: {sum}{reserved}"), remedy(place));
    } else if !place.fits() {
        let reason = format!("it fits with less than {} % to spare: {sum}", 100 - COMFORTABLE);
        findings.warn(subject, reason, remedy(place));
    } else {
        findings.pass(subject, sum);
    }
}

fn on(gpu: &Gpu, gpus: u32) -> String {
    if gpus == 1 { gpu.name.to_owned() } else { format!("each of {gpus} {}", gpu.name) }
}

/// What is suggested for a job of the facts: the words, the job and the machine.
#[cfg(test)]
pub(super) fn suggested(facts: &Facts, number: usize) -> Vec<(String, Job, Target)> {
    let (job, target) = (&facts.jobs[number], facts.target.as_ref().unwrap());
    let model = match &job.work {
        Work::Train(training) => &training.model,
        Work::Serve(serving) => &serving.model,
        Work::Other => return Vec::new(),
    };
    let shape = shape_of(facts, model).unwrap();
    let suggested = suggestions(&Place::new(facts, job, &shape, target));
    suggested.into_iter().map(|(what, changed)| (what, changed.job, changed.target)).collect()
}

fn remedy(place: &Place<'_>) -> String {
    let fitting: Vec<String> = suggestions(place)
        .into_iter()
        .map(|(what, changed)| format!("{what} ({})", gigabytes(changed.needed())))
        .collect();
    match fitting.is_empty() {
        true => "nothing that was tried fits: take a smaller model".to_owned(),
        false => format!("what would fit: {}", fitting.join("; or ")),
    }
}
