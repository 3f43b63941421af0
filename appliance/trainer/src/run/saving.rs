//! What a run leaves behind: its checkpoints, its result and the lineage of it. A full disk costs as little as it can.

use super::{Ended, Run, identity::name};
use crate::{
    checkpoint, disk,
    error::{Failed, storage},
    files,
    journal::{Journal, now},
    origin::Origin,
    result,
};
use gap_contract::{Base, Engine, FailureCode, Level, Lineage, Topic, Trained};
use gap_lm::{LIBRARIES, device, inference::Family};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long a result waits before it looks for room again.
const PAUSE: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Saves. Where there is no room, that is told and training goes on: the next save tries again, and the steps since the
    /// last checkpoint are lost only if the run is.
    pub(super) fn save_if_there_is_room(&mut self, journal: &mut Journal) -> Result<(), Failed> {
        // From the first one on each says what it goes on from.
        self.compare_origin(true)?;
        let failed = match self.save(journal) {
            Err(failed) if failed.is_full() => failed,
            saved => return saved,
        };
        if self.job.early_stopping.is_some() {
            // The best step is the result, and so must have a checkpoint.
            self.state.best = self.kept;
        }
        let step = self.state.step;
        let what = "training goes on without this checkpoint, and the next one tries again";
        let message = format!("the disk is full: {}. After step {step} {what}", failed.failure().message);
        journal.event(Level::Warn, Topic::Message, message, json!({ "step": step, "needed": self.leaves.checkpoint }))
    }

    pub(super) fn save(&mut self, journal: &mut Journal) -> Result<(), Failed> {
        // Who goes on from the checkpoint does these steps no more, so nobody would write their rows again after a power cut.
        journal.sync()?;
        let (step, dir) = (self.state.step, self.output.checkpoints());
        disk::expect(self.leaves.checkpoint, &dir, "write the checkpoint", &self.output.checkpoint(step))?;
        checkpoint::write(self.output, &self.state, &mut self.objective.model, &self.optimizer)?;
        self.kept = self.state.best;
        let best = self.job.early_stopping.and(self.state.best).map(|(_, step)| step);
        checkpoint::prune(self.output, self.job.save_total_limit, best)?;
        journal.event(Level::Info, Topic::Checkpoint, format!("checkpoint after step {step}"), json!({ "step": step }))
    }

    pub(super) fn finish(
        mut self,
        journal: &mut Journal,
        stop: &AtomicBool,
        patience: Duration,
    ) -> Result<Ended, Failed> {
        self.compare_origin(true)?;
        let gone = || Failed::new(FailureCode::Internal, "the base was not hashed");
        let origin = self.state.origin.clone().ok_or_else(gone)?;
        let (mut result_step, mut valid_loss) = (self.state.step, self.state.valid_loss);
        if let (Some(_), Some((loss, step))) = (self.job.early_stopping, self.state.best) {
            checkpoint::load_parameters(self.output, step, &mut self.objective.model)?;
            (result_step, valid_loss) = (step, Some(loss));
        }
        let mut left = Left { origin, result_step, valid_loss, result: None, told: false };
        let until = Instant::now() + patience;
        let mut warned = false;
        loop {
            let failed = match self.leave(journal, &mut left) {
                Err(failed) if failed.is_full() => failed,
                left => return left.map(|()| Ended::Succeeded),
            };
            if stop.load(Ordering::Relaxed) && self.output.checkpoint(self.state.step).exists() {
                return self.stop(journal);
            }
            if stop.load(Ordering::Relaxed) || Instant::now() >= until {
                return Err(failed);
            }
            if !warned {
                warned = true;
                let (why, seconds) = (&failed.failure().message, patience.as_secs());
                let message = format!("the disk is full: {why}. The result waits {seconds} s for room");
                let data = json!({ "step": self.state.step, "needed": self.leaves.result, "seconds": seconds });
                journal.event(Level::Warn, Topic::Message, message, data)?;
            }
            thread::sleep(PAUSE.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Writes the result, then its lineage, then says so. Where the disk is full it goes on when it is called again.
    fn leave(&mut self, journal: &mut Journal, left: &mut Left) -> Result<(), Failed> {
        journal.sync()?;
        if left.told {
            return Ok(());
        }
        let result = match &left.result {
            Some(result) => result.clone(),
            None => {
                let dir = self.output.dir();
                disk::expect(self.leaves.result, dir, "write the result in", dir)?;
                let result = result::write(self.output, self.job, &mut self.objective.model)?;
                left.result.insert(result).clone()
            }
        };
        let (parameters, trainable) = self.objective.model.sizes();
        let lineage = Lineage {
            version: 1,
            base: Base {
                name: name(&self.job.model),
                architecture: architecture(self.plan.config.family).to_owned(),
                digest: left.origin.base_sha256.clone(),
            },
            adapter: left.origin.adapter_sha256.clone(),
            data: self.data.clone(),
            job: self.job.clone().into_spec(),
            engine: engine(device::name(&self.plan.holding.device)?),
            started_at: self.state.started_at,
            finished_at: now(),
            trained: Trained {
                steps: self.state.step,
                result_step: left.result_step,
                tokens: self.state.trained_tokens,
                trainable_parameters: trainable as u64,
                parameters: parameters as u64,
                train_loss: self.state.train_loss,
                valid_loss: left.valid_loss,
            },
            result,
            evaluation: Vec::new(),
            deployments: Vec::new(),
        };
        let text = serde_json::to_vec_pretty(&lineage)
            .map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
        files::replace(&self.output.lineage(), &text).map_err(storage("write", &self.output.lineage()))?;
        let message = format!("done after {} steps", self.state.step);
        let data = json!({ "step": self.state.step, "result_step": left.result_step });
        journal.event(Level::Info, Topic::Succeeded, message, data)?;
        left.told = true;
        journal.sync()
    }
}

/// How far a run is with what it leaves behind.
struct Left {
    origin: Origin,
    result_step: u64,
    valid_loss: Option<f64>,
    result: Option<BTreeMap<PathBuf, String>>,
    told: bool,
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
