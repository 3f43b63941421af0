//! A job from its first step to its last.

mod announce;
mod identity;
mod saving;
mod validation;

use crate::{
    checkpoint::{self, State},
    data::batch,
    disk::Leaves,
    error::{Failed, storage},
    files,
    journal::{Journal, now},
    memory::Gauge,
    objective::{Measured, Objective, units},
    optimizer::{self, AdamW},
    origin::Hashing,
    plan::Plan,
    schedule,
};
use gap_contract::{DataFile, FailureCode, Job, Level, Method, Metrics, Output, Topic};
use gap_lm::training::{Adapters, Batch, Key, Pass};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// What the noise of dropout follows from beside the seed.
const DROPOUT: u64 = 4;
/// The share of memory from which on people are warned.
const FULL: f64 = 0.9;

/// How a run ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The job is done.
    Succeeded,
    /// It was asked to stop, after a checkpoint.
    Stopped,
}

/// An output directory that nobody else works on.
#[derive(Debug)]
pub struct Held {
    output: Output,
    _lock: File,
}

impl Held {
    /// Makes the directory and holds it.
    ///
    /// # Errors
    /// Where another engine holds it.
    pub fn take(dir: &Path) -> Result<Self, Failed> {
        let output = Output::new(dir);
        fs::create_dir_all(output.checkpoints()).map_err(storage("make", dir))?;
        let path = output.lock();
        let lock = OpenOptions::new().create(true).append(true).open(&path).map_err(storage("open", &path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message =
                format!("another engine works on {}; wait for it, or give the job its own `output`", dir.display());
            return Err(Failed::new(FailureCode::OutputBusy, message).about("output"));
        }
        for dir in [output.dir(), &output.checkpoints()] {
            files::remove_unfinished(dir).map_err(storage("clear", dir))?;
        }
        Ok(Self { output, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }
}

/// Runs a job, or goes on with it. When `stop` becomes true it stops after the step, with a checkpoint. Where the disk is full
/// at the end, the result waits `patience` for room.
///
/// # Errors
/// Why it failed; that is the last event, too, if events can be written at all.
pub fn run(job: &Job, resume: bool, stop: &AtomicBool, patience: Duration) -> Result<Ended, Failed> {
    let held = Held::take(&job.output)?;
    let begun = begin(held.output(), resume)?;
    let mut journal = Journal::open(held.output(), begun.from.as_ref().map_or(0, |state| state.step))?;
    let run = Run::prepare(job, held.output(), begun, &mut journal);
    let ended = run.and_then(|run| run.go(&mut journal, stop, patience));
    if let Err(failed) = &ended {
        // What is told on the terminal is the first failure, also where the event cannot be written.
        let _ = journal.failed(failed.failure());
    }
    ended
}

/// Where a run begins.
#[derive(Default)]
struct Begun {
    /// The state to go on from.
    from: Option<State>,
    /// Later checkpoints that cannot be used, and why.
    damaged: Vec<(u64, Failed)>,
}

/// Looks for the state to go on from: the last whole checkpoint. Without `resume` there must be nothing to lose.
fn begin(output: &Output, resume: bool) -> Result<Begun, Failed> {
    let steps = checkpoint::steps(output)?;
    if !resume {
        if steps.is_empty() && !output.lineage().exists() {
            return Ok(Begun::default());
        }
        let message = format!(
            "{} holds a run already; go on with `--resume`, or give the job its own `output`",
            output.dir().display()
        );
        return Err(Failed::new(FailureCode::OutputBusy, message).about("output"));
    }
    let mut damaged = Vec::new();
    for step in steps.into_iter().rev() {
        match checkpoint::state(output, step) {
            Ok(state) => return Ok(Begun { from: Some(state), damaged }),
            Err(failed) => damaged.push((step, failed)),
        }
    }
    match damaged.into_iter().next() {
        None => Ok(Begun::default()),
        Some((_, failed)) => {
            let message = format!(
                "{}, and no earlier one is whole; give the job its own `output` to begin anew",
                failed.failure().message
            );
            Err(Failed::new(FailureCode::Storage, message).about("output"))
        }
    }
}

struct Run<'a> {
    job: &'a Job,
    output: &'a Output,
    plan: Plan,
    objective: Objective,
    optimizer: AdamW,
    state: State,
    data: Vec<DataFile>,
    hashing: Hashing,
    leaves: Leaves,
    /// The best validation loss whose step has a checkpoint.
    kept: Option<(f64, u64)>,
    gauge: Gauge,
    warned: bool,
}

impl<'a> Run<'a> {
    fn prepare(job: &'a Job, output: &'a Output, begun: Begun, journal: &mut Journal) -> Result<Self, Failed> {
        let Begun { from, damaged } = begun;
        let hashing = Hashing::begin(job);
        let plan = Plan::make(job, from.as_ref().map(|state| state.batch))?;
        let data = identity::data_files(job, &plan)?;
        let identity = identity::of(job, &data)?;
        if from.as_ref().is_some_and(|state| state.job_sha256 != identity) {
            let message = "the job, its data or the tokenizer changed since the checkpoint; resume with what it began with, or give it its own `output`";
            return Err(Failed::new(FailureCode::InvalidJob, message).about("output"));
        }
        for (step, failed) in damaged {
            let aside = checkpoint::set_aside(output, step)?;
            let (why, from) = (&failed.failure().message, from.as_ref().map_or(0, |state| state.step));
            let message =
                format!("{why}; it was set aside as {}, and the run goes on after step {from}", aside.display());
            journal.event(Level::Warn, Topic::Message, message, json!({ "step": from, "damaged": step }))?;
        }
        let mut model = plan.load(job)?;
        let leaves = Leaves::of(job, &mut model)?;
        let there = checkpoint::steps(output)?.len() as u64;
        leaves.fit(job, output.dir(), from.as_ref().map_or(0, |state| state.step)..plan.total, there)?;
        let mut optimizer = AdamW::default();
        let reference = match (job.method, &job.lora) {
            (Method::Dpo, None) => Some(plan.load(job)?),
            (Method::Dpo, Some(_)) if job.adapter.is_some() => {
                model.keep_start()?;
                None
            }
            _ => None,
        };
        if let Some(state) = &from {
            checkpoint::load_parameters(output, state.step, &mut model)?;
            optimizer = checkpoint::load_moments(output, state.step, &plan.holding.device)?;
        }
        let resolved =
            serde_json::to_vec_pretty(&**job).map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
        files::replace(&output.job(), &resolved).map_err(storage("write", &output.job()))?;
        announce::announce(&plan, job, from.as_ref(), journal)?;
        let new = State { started_at: now(), batch: plan.batch, job_sha256: identity, ..State::default() };
        let state = State { learning_rate: job.learning_rate, ..from.unwrap_or(new) };
        let gauge = Gauge::new(plan.holding.device.clone());
        let (objective, kept) = (Objective { model, reference }, state.best);
        Ok(Self { job, output, plan, objective, optimizer, state, data, hashing, leaves, kept, gauge, warned: false })
    }

    fn go(mut self, journal: &mut Journal, stop: &AtomicBool, patience: Duration) -> Result<Ended, Failed> {
        while self.state.step < self.plan.total && !self.exhausted() {
            self.compare_origin(false)?;
            if stop.load(Ordering::Relaxed) {
                return self.stop(journal);
            }
            let mut row = self.step()?;
            let measured = self.due();
            if measured {
                row.valid_loss = self.validate(journal)?;
            }
            journal.metrics(&row)?;
            self.warn(journal)?;
            let improved = measured && self.job.early_stopping.is_some() && self.state.without_improvement == 0;
            let last = self.state.step == self.plan.total;
            let stopped = measured && self.exhausted();
            if improved
                || last
                || stopped
                || self.job.save_steps.is_some_and(|every| self.state.step.is_multiple_of(every))
            {
                self.save_if_there_is_room(journal)?;
            }
            if stopped {
                let best = self.state.best.map_or(0, |(_, step)| step);
                let message = format!("the validation loss no longer falls; the best step is {best}");
                journal.event(
                    Level::Info,
                    Topic::EarlyStopping,
                    message,
                    json!({ "step": self.state.step, "best_step": best }),
                )?;
                break;
            }
        }
        self.finish(journal, stop, patience)
    }

    fn stop(mut self, journal: &mut Journal) -> Result<Ended, Failed> {
        // Nothing is added to a checkpoint of another base; a run that has just begun has nothing to compare with.
        self.compare_origin(self.state.origin.is_some())?;
        if self.state.step > 0 && !self.output.checkpoint(self.state.step).exists() {
            self.save(journal)?;
        }
        let message = format!("stopped on request after step {}; `--resume` goes on", self.state.step);
        journal.event(Level::Info, Topic::Stopped, message, json!({ "step": self.state.step }))?;
        Ok(Ended::Stopped)
    }

    /// Notes the digests of base and adapter once they are known, and refuses others than those of the checkpoint.
    fn compare_origin(&mut self, wait: bool) -> Result<(), Failed> {
        if let Some(found) = self.hashing.take(wait)? {
            if let Some(before) = &self.state.origin {
                found.check(before, self.job)?;
            }
            self.state.origin = Some(found);
        }
        Ok(())
    }

    /// One optimiser step.
    #[allow(clippy::cast_precision_loss, reason = "steps and tokens are far below 2^52")]
    fn step(&mut self) -> Result<Metrics, Failed> {
        let began = Instant::now();
        let Self { job, plan, state, objective, optimizer, gauge, .. } = self;
        let step = state.step;
        let batches: Vec<Batch> = plan.epochs.batches(step).iter().map(|items| batch(&plan.training, items)).collect();
        let all: u64 = batches.iter().map(|batch| units(batch, job)).sum();
        let dropout = job.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0);
        let mut measured = Measured::default();
        for (index, batch) in batches.iter().enumerate() {
            let key = Key::new(job.seed).part(DROPOUT).part(step).part(index as u64);
            let pass = Pass { adapters: Adapters::Trained, dropout: dropout.then_some(key) };
            measured = measured.and(objective.train(batch, job, pass, all)?);
            gauge.look()?;
        }
        let norm = optimizer::gradient_norm(&mut objective.model)?;
        let loss = measured.mean();
        if !(loss.is_finite() && norm.is_finite()) {
            let message = format!(
                "step {} gives a loss of {loss} and a gradient of {norm}, which are no numbers; lower `learning_rate` and resume",
                step + 1
            );
            return Err(Failed::new(FailureCode::NotFinite, message).about("learning_rate"));
        }
        let clip = if job.max_grad_norm > 0.0 { (job.max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let rate = schedule::rate(job, step, plan.total);
        optimizer.step(&mut objective.model, job, step + 1, rate, clip)?;
        state.step += 1;
        state.trained_tokens += measured.tokens;
        state.train_loss = loss;
        let share = |sum: f64| sum / measured.units.max(1) as f64;
        Ok(Metrics {
            step: state.step,
            epoch: state.step as f64 / plan.epochs.steps().max(1) as f64,
            train_loss: loss,
            learning_rate: rate,
            grad_norm: norm,
            tokens: measured.tokens,
            trained_tokens: state.trained_tokens,
            tokens_per_second: measured.tokens as f64 / began.elapsed().as_secs_f64().max(1e-9),
            memory: gauge.peak(),
            valid_loss: None,
            rewards_chosen: measured.rewards.map(|[chosen, ..]| share(chosen)),
            rewards_rejected: measured.rewards.map(|[_, rejected, _]| share(rejected)),
            rewards_accuracies: measured.rewards.map(|[.., right]| share(right)),
        })
    }

    /// Warns once when memory runs out. What is advised to resume with, a checkpoint goes on with.
    fn warn(&mut self, journal: &mut Journal) -> Result<(), Failed> {
        let share = self.gauge.share()?;
        if share > FULL && !self.warned {
            self.warned = true;
            let resume =
                if self.job.gradient_checkpointing { "" } else { "resume it with `gradient_checkpointing`, or " };
            let message = format!(
                "{:.0} % of the memory is in use; if the job is killed, {resume}begin it anew with a lower `batch_size` or \
                 `max_length`",
                share * 100.0
            );
            journal.event(Level::Warn, Topic::MemoryNearlyFull, message, json!({ "share": share }))?;
        }
        Ok(())
    }
}
