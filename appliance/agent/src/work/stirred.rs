//! Who follows a job is told when it printed a line or ended; others are left alone.

use gap_jobs::JobId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// What is told of each job that runs or is followed.
#[derive(Debug, Default)]
pub struct Stirred(Mutex<BTreeMap<JobId, Arc<Notify>>>);

impl Stirred {
    /// Told when the job printed a line or ended.
    pub fn of(&self, job: &JobId) -> Arc<Notify> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(job.clone()).or_default())
    }

    /// Tells of the end of a job, and forgets those that nobody holds any more.
    pub fn ended(&self, job: &JobId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = all.get(job) {
            notify.notify_waiters();
        }
        all.retain(|_, notify| Arc::strong_count(notify) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_of_one_job_are_not_woken_by_another() {
        let stirred = Stirred::default();
        let (one, other) = (JobId::new(JobId::OTHER), JobId::new(JobId::OTHER));
        let (mine, theirs) = (stirred.of(&one), stirred.of(&other));
        let (mut told, mut silent) = (std::pin::pin!(mine.notified()), std::pin::pin!(theirs.notified()));
        assert!(!told.as_mut().enable() && !silent.as_mut().enable());
        stirred.of(&one).notify_waiters();
        told.await;
        assert!(!silent.as_mut().enable());
        stirred.ended(&other);
        assert!(silent.enable());
    }

    #[test]
    fn what_nobody_follows_is_forgotten() {
        let stirred = Stirred::default();
        let (kept, gone) = (JobId::new(JobId::OTHER), JobId::new(JobId::OTHER));
        let held = stirred.of(&kept);
        drop(stirred.of(&gone));
        stirred.ended(&gone);
        assert_eq!(stirred.0.lock().unwrap().len(), 1);
        drop(held);
        stirred.ended(&kept);
        assert!(stirred.0.lock().unwrap().is_empty());
    }
}
