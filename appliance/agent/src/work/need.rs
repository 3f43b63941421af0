//! Whether what a job left behind is still needed.

use super::{Work, order::Order};
use gap_jobs::{Job, JobId, QueueError, State, queue::Filter};

/// States of jobs that may work on something, now or later.
const NOT_OVER: [State; 5] = [State::Queued, State::Running, State::Pausing, State::Paused, State::Cancelling];

impl Work {
    /// Who needs the model that this job made, and what has to be done before it can go; nothing where nobody does.
    ///
    /// # Errors
    /// [`QueueError`].
    pub fn need_of(&self, job: &Job) -> Result<Option<String>, QueueError> {
        let stands_for = |name: &str| self.resolve(name) == job.name;
        let promoted = self.promotions.current().into_iter().find(|one| one.model == job.name && stands_for(&one.name));
        if let Some(promoted) = promoted {
            let (model, name) = (promoted.model, promoted.name);
            return Ok(Some(format!(
                "the model `{model}` stands under the name `{name}`: promote another one to it first"
            )));
        }
        let jobs = self.queue().jobs(&Filter { states: NOT_OVER.to_vec(), limit: usize::MAX, ..Filter::default() })?;
        let user = jobs.into_iter().find(|other| works_on(other, &job.id));
        Ok(user.map(|other| {
            let (id, state) = (other.id, other.state.name());
            format!("the job {id}, which is {state}, works on its model: cancel that job or wait for its end first")
        }))
    }
}

/// Whether a job works on the model that this one made.
fn works_on(other: &Job, id: &JobId) -> bool {
    let order: Option<Order> = serde_json::from_str(&other.request).ok();
    order.and_then(|order| order.model?.trained).is_some_and(|trained| trained == *id)
}
