//! Room on the disk: what a run will leave there, and what there is.

use crate::{
    checkpoint,
    error::{Failed, storage},
    result,
};
use gap_contract::{FailureCode, Job};
use gap_lm::training::TrainableDecoder;
use std::{ops::Range, path::Path};

/// What a run leaves behind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaves {
    /// A checkpoint.
    pub checkpoint: u64,
    /// The adapter or the model.
    pub result: u64,
}

impl Leaves {
    /// Of a job on a loaded model.
    ///
    /// # Errors
    /// Where a file of the base cannot be looked at.
    pub fn of(job: &Job, model: &mut TrainableDecoder) -> Result<Self, Failed> {
        Ok(Self { checkpoint: checkpoint::size(model)?, result: result::size(job, model)? })
    }

    /// Refuses a job whose steps cannot all be made without filling the disk: with `there` checkpoints in `dir` already, all
    /// others that the job keeps and its result must find room. Checkpoints of a best step that early stopping finds come on
    /// top, and are not counted.
    ///
    /// # Errors
    /// Where there is too little room, with what would do.
    pub fn fit(self, job: &Job, dir: &Path, steps: Range<u64>, there: u64) -> Result<(), Failed> {
        let free = free(dir)?;
        let needed = |limit| {
            let more = more_checkpoints(job, &steps, there, limit);
            (more, self.checkpoint.saturating_mul(more).saturating_add(self.result))
        };
        let (more, all) = needed(job.save_total_limit);
        if all <= free {
            return Ok(());
        }
        let fits = (1..=more).rev().find(|limit| needed(Some(*limit)).1 <= free);
        let advice = match fits {
            Some(limit) => format!("`save_total_limit` {limit} would fit, or make room"),
            None => "make room, or give the job an `output` on a larger disk".to_owned(),
        };
        let message = format!(
            "the job leaves {more} checkpoint{} of {} and a result of {}, {} in all, but {} has room for {}; {advice}",
            if more == 1 { "" } else { "s" },
            megabytes(self.checkpoint),
            megabytes(self.result),
            megabytes(all),
            dir.display(),
            megabytes(free)
        );
        Err(Failed::new(FailureCode::Storage, message).about("output"))
    }
}

/// How many checkpoints there will be at once beside the `there` that there are.
fn more_checkpoints(job: &Job, steps: &Range<u64>, there: u64, limit: Option<u64>) -> u64 {
    if steps.is_empty() {
        return 0;
    }
    let every = job.save_steps.unwrap_or(steps.end).max(1);
    let saves = steps.end / every - steps.start / every + u64::from(!steps.end.is_multiple_of(every));
    let best = u64::from(job.early_stopping.is_some());
    // A new one is there before the oldest goes.
    let most = limit.map_or(u64::MAX, |limit| limit.saturating_add(best + 1));
    most.min(there.saturating_add(saves)).saturating_sub(there).max(1)
}

/// Bytes that a file in a directory may still get.
///
/// # Errors
/// What the system says.
pub fn free(dir: &Path) -> Result<u64, Failed> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| storage("look at the room in", dir)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Fails, as a full disk would, before something is begun for which there is no room.
///
/// # Errors
/// Where `dir` has no room for `bytes`.
pub fn expect(bytes: u64, dir: &Path, what: &str, path: &Path) -> Result<(), Failed> {
    let free = free(dir)?;
    if bytes <= free {
        return Ok(());
    }
    let full = std::io::Error::new(
        std::io::ErrorKind::StorageFull,
        format!("it has {}, and there is room for {}", megabytes(bytes), megabytes(free)),
    );
    Err(storage(what, path)(full))
}

/// A size for people.
#[allow(clippy::cast_precision_loss, reason = "a size for people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
