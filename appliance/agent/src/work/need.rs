//! Whether what was brought and what jobs left behind is still needed, and deleting what is not.
//!
//! Who deletes holds a lock from the look at who needs it until nobody finds it any more, and so does who puts a job into the queue or gives a
//! model a name, from the look at whether all is there until that is kept.

use super::{
    Work,
    files::FilesError,
    order::{DataOrder, Order},
    storage::remove,
    submit::SubmitError,
};
use gap_jobs::{Job, JobId, Kind, QueueError, State, queue::Filter};
use std::{
    io,
    sync::{MutexGuard, PoisonError},
};

/// States of jobs that may work on something, now or later.
const NOT_OVER: [State; 5] = [State::Queued, State::Running, State::Pausing, State::Paused, State::Cancelling];

/// Why something is not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It is needed.
    #[error("{0}")]
    Needed(String),
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The data volume.
    #[error("deleting the output of {job}: {source}")]
    Output {
        /// Whose.
        job: JobId,
        /// What the system said.
        source: io::Error,
    },
}

impl Work {
    /// Deletes an uploaded file, unless a job works on it. Takes its time, in which nobody is held up.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub fn delete_file(&self, id: &str) -> Result<(), DeleteError> {
        let needs = self.hold_needs();
        if let Some(user) = self.user(|order| trains_on(order, id))? {
            return Err(DeleteError::Needed(waits_for_its_end(&user, "that file")));
        }
        let bytes = self.files.forget(id)?;
        drop(needs);
        Ok(remove(&bytes).map_err(FilesError::from)?)
    }

    /// Deletes what a job that has ended left behind, unless somebody needs the model that it made. Takes its time, in which
    /// nobody is held up.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub fn delete_output(&self, id: &JobId) -> Result<(), DeleteError> {
        let needs = self.hold_needs();
        let job = self.queue().job(id)?;
        if !job.state.is_final() {
            let state = job.state.name();
            return Err(DeleteError::Needed(format!("the job {id} is {state}: only what has ended is deleted")));
        }
        if let Some(need) = self.need_of(&job)? {
            return Err(DeleteError::Needed(need));
        }
        let failed = |source| DeleteError::Output { job: id.clone(), source };
        let taken = self.storage.take_output(id.as_str()).map_err(failed)?;
        drop(needs);
        // It may be millions of files.
        taken.map_or(Ok(()), |taken| remove(&taken)).map_err(failed)
    }

    /// Held by who looks at what is needed, or needs something from now on.
    pub(super) fn hold_needs(&self) -> MutexGuard<'_, ()> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what can be deleted and an order names is still there.
    ///
    /// # Errors
    /// [`SubmitError`] with what is gone.
    pub(super) fn still_has(&self, order: &Order) -> Result<(), SubmitError> {
        for data in [&order.training, &order.validation].into_iter().flatten() {
            if let DataOrder::File(id) = data {
                self.files.get(id)?;
            }
        }
        match &order.model {
            Some(model) if model.jobs().any(|job| self.result_of(job.as_str()).is_none()) => {
                Err(SubmitError::NoModel(model.name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Who needs the model that this job made, and what has to be done before it can go; nothing where nobody does.
    fn need_of(&self, job: &Job) -> Result<Option<String>, QueueError> {
        // A job that served a model or measured it may bear its name, and has not made it.
        if job.kind != Kind::Train {
            return Ok(None);
        }
        let stands_for = |name: &str| self.model(name).is_ok_and(|model| model.needs(&job.id));
        let promoted = self.promotions.current().into_iter().find(|one| stands_for(&one.name));
        if let Some(promoted) = promoted {
            let (model, name) = (promoted.model, promoted.name);
            return Ok(Some(format!(
                "the model `{model}` stands under the name `{name}`: promote another one to it first"
            )));
        }
        let user = self.user(|order| works_on(order, &job.id))?;
        Ok(user.map(|user| waits_for_its_end(&user, "its model")))
    }

    /// A job that has not ended and whose order is one of these.
    fn user(&self, is_one: impl Fn(&Order) -> bool) -> Result<Option<Job>, QueueError> {
        let jobs = self.queue().jobs(&Filter { states: NOT_OVER.to_vec(), limit: usize::MAX, ..Filter::default() })?;
        Ok(jobs.into_iter().find(|job| serde_json::from_str(&job.request).is_ok_and(|order| is_one(&order))))
    }
}

fn waits_for_its_end(user: &Job, what: &str) -> String {
    let (id, state) = (&user.id, user.state.name());
    format!("the job {id}, which is {state}, works on {what}: cancel that job or wait for its end first")
}

/// Whether an order works on the model that this job made.
fn works_on(order: &Order, id: &JobId) -> bool {
    order.model.as_ref().is_some_and(|model| model.needs(id))
}

/// Whether an order trains on this file, or measures on it.
fn trains_on(order: &Order, id: &str) -> bool {
    [&order.training, &order.validation]
        .into_iter()
        .flatten()
        .any(|data| matches!(data, DataOrder::File(file) if file == id))
}
