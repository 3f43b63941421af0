//! A job from its first step to its last.

use crate::{
    checkpoint::{self, State},
    data::{Examples, batch},
    digest,
    error::{Failed, storage},
    files,
    journal::{Journal, now},
    memory::Gauge,
    objective::{Measured, Objective, units},
    optimizer::{self, AdamW},
    plan::Plan,
    result, schedule,
};
use gap_contract::{
    Base, DataFile, Engine, FailureCode, Job, JobSpec, Level, Lineage, Method, Metrics, Output, Role, Topic, Trained,
};
use gap_lm::{
    LIBRARIES, device,
    inference::Family,
    training::{Batch, Key, Pass},
};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

/// What the noise of dropout follows from beside the seed.
const DROPOUT: u64 = 4;
/// The share of memory from which on people are warned.
const FULL: f64 = 0.9;
/// Tokens of validation examples that are measured at once.
const MEASURED_TOKENS: usize = 8192;

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
        Ok(Self { output, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }
}

/// Runs a job, or goes on with it. When `stop` becomes true it stops after the step, with a checkpoint.
///
/// # Errors
/// Why it failed; that is the last event, too, if events can be written at all.
pub fn run(job: &Job, resume: bool, stop: &AtomicBool) -> Result<Ended, Failed> {
    let held = Held::take(&job.output)?;
    let from = begin(held.output(), resume)?;
    let mut journal = Journal::open(held.output(), from.as_ref().map_or(0, |state| state.step))?;
    let ended = Run::prepare(job, held.output(), from, &mut journal).and_then(|run| run.go(&mut journal, stop));
    if let Err(failed) = &ended {
        // What is told on the terminal is the first failure, also where the event cannot be written.
        let _ = journal.failed(failed.failure());
    }
    ended
}

/// The state to go on from: the last whole checkpoint. Without `resume` there must be nothing to lose.
fn begin(output: &Output, resume: bool) -> Result<Option<State>, Failed> {
    let steps = checkpoint::steps(output)?;
    if !resume {
        if steps.is_empty() && !output.lineage().exists() {
            return Ok(None);
        }
        let message = format!(
            "{} holds a run already; go on with `--resume`, or give the job its own `output`",
            output.dir().display()
        );
        return Err(Failed::new(FailureCode::OutputBusy, message).about("output"));
    }
    steps.last().map(|step| checkpoint::state(output, *step)).transpose()
}

struct Run<'a> {
    job: &'a Job,
    output: &'a Output,
    plan: Plan,
    objective: Objective,
    optimizer: AdamW,
    state: State,
    data: Vec<DataFile>,
    base: thread::JoinHandle<Result<String, digest::DigestError>>,
    gauge: Gauge,
    warned: bool,
}

impl<'a> Run<'a> {
    fn prepare(job: &'a Job, output: &'a Output, from: Option<State>, journal: &mut Journal) -> Result<Self, Failed> {
        let model = job.model.clone();
        // Hashing a large base takes longer than loading it, and is needed only at the end.
        let base = thread::spawn(move || digest::of_model(&model));
        let plan = Plan::make(job, from.as_ref().map(|state| state.batch))?;
        let data = data_files(job, &plan)?;
        let identity = identity(job, &data)?;
        if from.as_ref().is_some_and(|state| state.job_sha256 != identity) {
            let message = "the job or its data changed since the checkpoint; resume with what it began with, or give it its own `output`";
            return Err(Failed::new(FailureCode::InvalidJob, message).about("output"));
        }
        let mut model = plan.load(job)?;
        let mut optimizer = AdamW::default();
        let reference = match (job.method, &job.lora) {
            (Method::Dpo, None) => Some(plan.load(job)?),
            _ => None,
        };
        if let Some(state) = &from {
            checkpoint::load_parameters(output, state.step, &mut model)?;
            optimizer = checkpoint::load_moments(output, state.step, &plan.holding.device)?;
        }
        let resolved =
            serde_json::to_vec_pretty(&**job).map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
        files::replace(&output.job(), &resolved).map_err(storage("write", &output.job()))?;
        let new = State { started_at: now(), batch: plan.batch, job_sha256: identity, ..State::default() };
        announce(&plan, job, from.as_ref(), journal)?;
        let objective = Objective { model, reference };
        let gauge = Gauge::new(plan.holding.device.clone());
        let state = from.unwrap_or(new);
        Ok(Self { job, output, plan, objective, optimizer, state, data, base, gauge, warned: false })
    }

    fn go(mut self, journal: &mut Journal, stop: &AtomicBool) -> Result<Ended, Failed> {
        while self.state.step < self.plan.total && !self.exhausted() {
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
                self.save(journal)?;
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
        self.finish(journal)
    }

    fn stop(mut self, journal: &mut Journal) -> Result<Ended, Failed> {
        if self.state.step > 0 && !self.output.checkpoint(self.state.step).exists() {
            self.save(journal)?;
        }
        let message = format!("stopped on request after step {}; `--resume` goes on", self.state.step);
        journal.event(Level::Info, Topic::Stopped, message, json!({ "step": self.state.step }))?;
        Ok(Ended::Stopped)
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
            let pass = Pass { adapters: true, dropout: dropout.then_some(key) };
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

    /// Whether the validation loss is measured after this step.
    fn due(&self) -> bool {
        let every = self.job.eval_steps.unwrap_or_else(|| self.plan.epochs.steps()).max(1);
        self.plan.validation.is_some() && (self.state.step.is_multiple_of(every) || self.state.step == self.plan.total)
    }

    fn validate(&mut self, journal: &mut Journal) -> Result<Option<f64>, Failed> {
        let Some(validation) = &self.plan.validation else { return Ok(None) };
        let mut measured = Measured::default();
        for batch in measured_batches(validation) {
            measured = measured.and(self.objective.measure(&batch, self.job)?);
        }
        let loss = measured.mean();
        let step = self.state.step;
        let message = format!("validation loss {loss:.4} after step {step}");
        journal.event(Level::Info, Topic::Validation, message, json!({ "step": step, "valid_loss": loss }))?;
        let state = &mut self.state;
        state.rising = if state.valid_loss.is_some_and(|before| loss > before) { state.rising + 1 } else { 0 };
        if state.rising == 2 {
            let message = "the validation loss rose twice in a row: the model may be learning the examples by heart";
            journal.event(
                Level::Warn,
                Topic::ValidationLossRising,
                message,
                json!({ "step": step, "valid_loss": loss }),
            )?;
        }
        state.valid_loss = Some(loss);
        let threshold = self.job.early_stopping.map_or(0.0, |stopping| stopping.threshold);
        if state.best.is_none_or(|(best, _)| loss < best - threshold) {
            state.best = Some((loss, step));
            state.without_improvement = 0;
        } else {
            state.without_improvement += 1;
        }
        Ok(Some(loss))
    }

    fn exhausted(&self) -> bool {
        self.job.early_stopping.is_some_and(|stopping| self.state.without_improvement >= stopping.patience)
    }

    fn warn(&mut self, journal: &mut Journal) -> Result<(), Failed> {
        let share = self.gauge.share()?;
        if share > FULL && !self.warned {
            self.warned = true;
            let message = format!(
                "{:.0} % of the memory is in use; lower `batch_size` or `max_length` if the job is killed",
                share * 100.0
            );
            journal.event(Level::Warn, Topic::MemoryNearlyFull, message, json!({ "share": share }))?;
        }
        Ok(())
    }

    fn save(&mut self, journal: &mut Journal) -> Result<(), Failed> {
        // Who goes on from the checkpoint does these steps no more, so nobody would write their rows again after a power cut.
        journal.sync()?;
        checkpoint::write(self.output, &self.state, &mut self.objective.model, &self.optimizer)?;
        let best = self.job.early_stopping.and(self.state.best).map(|(_, step)| step);
        checkpoint::prune(self.output, self.job.save_total_limit, best)?;
        let step = self.state.step;
        journal.event(Level::Info, Topic::Checkpoint, format!("checkpoint after step {step}"), json!({ "step": step }))
    }

    fn finish(mut self, journal: &mut Journal) -> Result<Ended, Failed> {
        let mut result_step = self.state.step;
        let mut valid_loss = self.state.valid_loss;
        if let (Some(_), Some((loss, step))) = (self.job.early_stopping, self.state.best) {
            checkpoint::load_parameters(self.output, step, &mut self.objective.model)?;
            (result_step, valid_loss) = (step, Some(loss));
        }
        let gone = || Failed::new(FailureCode::Internal, "the thread that hashes the model is gone");
        let base = self.base.join().map_err(|_| gone())?.map_err(|error| Failed::model(error.to_string()))?;
        let result = result::write(self.output, self.job, &mut self.objective.model)?;
        let (parameters, trainable) = self.objective.model.sizes();
        let adapter = self.job.adapter.as_ref().map(|dir| digest::of_file(&dir.join("adapter_model.safetensors")));
        let adapter =
            adapter.transpose().map_err(|error| Failed::new(FailureCode::InvalidAdapter, error.to_string()))?;
        let lineage = Lineage {
            version: 1,
            base: Base {
                name: name(&self.job.model),
                architecture: architecture(self.plan.config.family).to_owned(),
                digest: base,
            },
            adapter,
            data: self.data,
            job: self.job.clone().into_spec(),
            engine: engine(device::name(&self.plan.holding.device)?),
            started_at: self.state.started_at,
            finished_at: now(),
            trained: Trained {
                steps: self.state.step,
                result_step,
                tokens: self.state.trained_tokens,
                trainable_parameters: trainable as u64,
                parameters: parameters as u64,
                train_loss: self.state.train_loss,
                valid_loss,
            },
            result,
            evaluation: Vec::new(),
            deployments: Vec::new(),
        };
        let text = serde_json::to_vec_pretty(&lineage)
            .map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
        files::replace(&self.output.lineage(), &text).map_err(storage("write", &self.output.lineage()))?;
        let message = format!("done after {} steps", self.state.step);
        journal.event(
            Level::Info,
            Topic::Succeeded,
            message,
            json!({ "step": self.state.step, "result_step": result_step }),
        )?;
        Ok(Ended::Succeeded)
    }
}

/// Validation examples in file order, as many at once as memory surely has room for.
fn measured_batches(examples: &Examples) -> Vec<Batch> {
    let items: Vec<Vec<usize>> = (0..examples.sequences.len()).map(|index| vec![index]).collect();
    let length = |item: &Vec<usize>| -> usize {
        item.iter().filter_map(|index| examples.sequences.get(*index)).flatten().map(|one| one.tokens().len()).sum()
    };
    let (mut all, mut open, mut tokens) = (Vec::new(), Vec::new(), 0);
    for item in &items {
        if !open.is_empty() && tokens + length(item) > MEASURED_TOKENS {
            all.push(batch(examples, &open));
            (open, tokens) = (Vec::new(), 0);
        }
        tokens += length(item);
        open.push(item);
    }
    all.push(batch(examples, &open));
    all
}

fn announce(plan: &Plan, job: &Job, from: Option<&State>, journal: &mut Journal) -> Result<(), Failed> {
    let (topic, message) = match from {
        None => (
            Topic::Started,
            format!("{} steps, {} examples, batches of {}", plan.total, plan.training.sequences.len(), plan.batch),
        ),
        Some(state) => (Topic::Resumed, format!("goes on after step {} of {}", state.step, plan.total)),
    };
    let step = from.map_or(0, |state| state.step);
    journal.event(
        Level::Info,
        topic,
        message,
        json!({ "steps": plan.total, "step": step, "batch_size": plan.batch }),
    )?;
    let estimate = json!({
        "weights": plan.estimate.weights, "training": plan.estimate.training, "activations": plan.estimate.activations,
        "total": plan.estimate.total(), "available": plan.available, "batch_size": plan.batch,
    });
    let message = format!("needs about {} MiB of {} MiB", plan.estimate.total() >> 20, plan.available >> 20);
    journal.event(Level::Info, Topic::Estimate, message, estimate)?;
    let files = [
        (&job.training_file, Some(&plan.training)),
        (job.validation_file.as_ref().unwrap_or(&job.training_file), plan.validation.as_ref()),
    ];
    for (path, examples) in files.into_iter().filter_map(|(path, examples)| Some((path, examples?))) {
        if examples.truncated + examples.left_out > 0 {
            let message = format!(
                "of {} examples in {}, {} were cut off at {} tokens ({} tokens lost) and {} left out, because nothing to train on was left",
                examples.rows,
                name(path),
                examples.truncated,
                job.max_length,
                examples.cut_tokens,
                examples.left_out
            );
            journal.event(Level::Warn, Topic::Data, message, counts(examples))?;
        }
    }
    Ok(())
}

fn counts(examples: &Examples) -> Value {
    json!({
        "examples": examples.rows, "truncated": examples.truncated, "left_out": examples.left_out,
        "cut_tokens": examples.cut_tokens,
    })
}

fn data_files(job: &Job, plan: &Plan) -> Result<Vec<DataFile>, Failed> {
    let file = |role, path: &Path, examples: &Examples| -> Result<DataFile, Failed> {
        let unread =
            |error: &dyn std::fmt::Display| crate::error::invalid_data(path, 0, format!("it cannot be read: {error}"));
        Ok(DataFile {
            role,
            name: name(path),
            sha256: digest::of_file(path).map_err(|error| unread(&error))?,
            bytes: fs::metadata(path).map_err(|error| unread(&error))?.len(),
            examples: examples.rows,
            truncated: examples.truncated,
        })
    };
    let mut files = vec![file(Role::Training, &job.training_file, &plan.training)?];
    if let (Some(path), Some(examples)) = (&job.validation_file, &plan.validation) {
        files.push(file(Role::Validation, path, examples)?);
    }
    Ok(files)
}

/// What must be the same for a run to go on: all that decides about numbers.
fn identity(job: &Job, data: &[DataFile]) -> Result<String, Failed> {
    let mut spec: JobSpec = job.clone().into_spec();
    spec.output = "".into();
    spec.save_steps = None;
    spec.save_total_limit = None;
    spec.metadata = BTreeMap::new();
    let files: Vec<&str> = data.iter().map(|file| file.sha256.as_str()).collect();
    let text =
        serde_json::to_vec(&(spec, files)).map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
    Ok(files::digest(&text))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

const fn architecture(family: Family) -> &'static str {
    match family {
        Family::Llama => "LlamaForCausalLM",
        Family::Mistral => "MistralForCausalLM",
        Family::Qwen2 => "Qwen2ForCausalLM",
        Family::Qwen3 => "Qwen3ForCausalLM",
    }
}

fn engine(device: String) -> Engine {
    let own = ("gap-train", env!("CARGO_PKG_VERSION"));
    let versions =
        LIBRARIES.into_iter().chain([own]).map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    Engine { name: "gap-train".to_owned(), versions, device }
}
