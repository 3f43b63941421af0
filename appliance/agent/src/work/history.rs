//! What jobs that have ended printed and told: kept up to a bound, the last for longest. What they left behind is kept until
//! somebody deletes it, and so is that there was such a job, and how it ended.

use super::{Work, storage::Storage};
use gap_jobs::{JobId, QueueError, log};
use std::io;

/// Most bytes of logs of ended jobs, and the share of the data volume that they have at most, in per cent.
const LOGS: u64 = 4 << 30;
const LOGS_PERCENT: u64 = 5;
/// Most events that ended jobs told, besides changes of their state.
const TOLD: u64 = 500_000;

/// Why it is kept as it is.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The queue.
    #[error("what jobs told long ago is not forgotten: {0}")]
    Queue(#[from] QueueError),
    /// The data volume.
    #[error("old logs are not deleted: {0}")]
    Io(#[from] io::Error),
}

impl Work {
    /// Forgets what is beyond the bounds.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn forget_history(&self) -> Result<(), HistoryError> {
        let (_, total) = self.storage.space()?;
        forget_logs(&self.storage, &self.queue().ended_jobs()?, LOGS.min(total / 100 * LOGS_PERCENT))?;
        Ok(self.queue().forget_told(TOLD)?)
    }
}

/// Deletes logs of these jobs, of which the last to end comes first, from where there are more than `most` bytes.
fn forget_logs(storage: &Storage, ended: &[JobId], most: u64) -> io::Result<()> {
    let mut left = Some(most);
    for job in ended {
        let bytes = log::bytes(&storage.log(job.as_str()))?;
        left = left.and_then(|left| left.checked_sub(bytes));
        if left.is_none() {
            storage.delete_log(job.as_str())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;
    use gap_jobs::log::{Log, Stream};
    use std::fs;

    #[test]
    fn the_logs_of_those_that_ended_first_go_first_and_nothing_else_goes() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let ended = [(); 4].map(|()| JobId::new(JobId::OTHER));
        for job in &ended {
            fs::create_dir_all(storage.output(job.as_str())).unwrap();
            Log::open(&storage.log(job.as_str())).unwrap().append(Stream::Out, &[b'x'; 1000], 1).unwrap();
        }
        let left = || ended.iter().filter(|job| storage.log(job.as_str()).exists()).count();
        forget_logs(&storage, &ended, 10_000).unwrap();
        assert_eq!(left(), 4);
        forget_logs(&storage, &ended, 2500).unwrap();
        assert_eq!(left(), 2);
        assert!(ended.iter().take(2).all(|job| storage.log(job.as_str()).exists()), "the last to end are the first");
        forget_logs(&storage, &ended, 0).unwrap();
        assert_eq!(left(), 0);
        assert!(ended.iter().all(|job| storage.output(job.as_str()).exists()));
    }
}
