//! Whether what a job left behind is still needed.

use super::{
    Work,
    order::{ModelOrder, Order},
};
use gap_jobs::{Job, QueueError, State, queue::Filter};

/// States of jobs that may work on something, now or later.
const NOT_OVER: [State; 5] = [State::Queued, State::Running, State::Pausing, State::Paused, State::Cancelling];

impl Work {
    /// Who needs the model that this job made, and what has to be done before it can go; nothing where nobody does.
    ///
    /// # Errors
    /// [`QueueError`].
    pub fn need_of(&self, job: &Job) -> Result<Option<String>, QueueError> {
        let needs = |model: &ModelOrder| [&model.trained, &model.whole].into_iter().flatten().any(|id| *id == job.id);
        let stands_for = |name: &str| self.model(name).is_ok_and(|model| needs(&model));
        let promoted = self.promotions.current().into_iter().find(|one| stands_for(&one.name));
        if let Some(promoted) = promoted {
            let (model, name) = (promoted.model, promoted.name);
            return Ok(Some(format!(
                "the model `{model}` stands under the name `{name}`: promote another one to it first"
            )));
        }
        let jobs = self.queue().jobs(&Filter { states: NOT_OVER.to_vec(), limit: usize::MAX, ..Filter::default() })?;
        let user = jobs.into_iter().find(|other| model_of(other).is_some_and(|model| needs(&model)));
        Ok(user.map(|other| {
            let (id, state) = (other.id, other.state.name());
            format!("the job {id}, which is {state}, works on its model: cancel that job or wait for its end first")
        }))
    }
}

/// The model that a job works on.
fn model_of(job: &Job) -> Option<ModelOrder> {
    serde_json::from_str::<Order>(&job.request).ok()?.model
}
