//! Giving a model a stable name, if it was measured to be good enough or an admin answers for it.

use super::{Finding, Promotion, PromotionsError, is_stable_name, judgement::Unjudged, lineage};
use crate::{
    console,
    work::{Work, order::ModelOrder, submit::SubmitError},
};
use gap_contract::{Deployment, Release};
use gap_jobs::{JobId, dispatcher::now};

/// A promotion to make.
#[derive(Debug, Clone)]
pub struct NewPromotion {
    /// The stable name.
    pub name: String,
    /// The model.
    pub model: String,
    /// The job that measured it.
    pub evaluation: Option<JobId>,
    /// Why it is promoted whatever was measured.
    pub reason: Option<String>,
    /// Name of the token.
    pub promoted_by: String,
    /// The release that runs.
    pub release: Release,
    /// What its maker calls each GPU.
    pub gpus: Vec<String>,
    /// Version of the driver.
    pub driver: Option<String>,
}

/// Why a model is not promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The stable name cannot be one.
    #[error("a stable name is 1 to 64 letters, digits, `-`, `_` and `.`, and begins with a letter or digit")]
    Name,
    /// A model of the release has this name.
    #[error("a model of the release has this name")]
    Taken,
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] SubmitError),
    /// What made it left nothing, or it was deleted.
    #[error("the model `{0}` is gone: what its job left was deleted")]
    Gone(String),
    /// Nothing says how good it is.
    #[error("name the job that evaluated the model; without one an admin has to give a reason")]
    NotEvaluated,
    /// The evaluation says nothing about it.
    #[error(transparent)]
    Unjudged(#[from] Unjudged),
    /// It is not good enough.
    #[error("the model `{model}` does not meet what the release demands: {missed}")]
    Unmet {
        /// The model.
        model: String,
        /// What is missed.
        missed: String,
    },
    /// Keeping it.
    #[error(transparent)]
    Promotions(#[from] PromotionsError),
}

impl Work {
    /// Whether a model may be promoted: what the release demands of it, and what was measured.
    ///
    /// # Errors
    /// [`PromoteError`].
    fn findings(&self, model: &ModelOrder, new: &NewPromotion) -> Result<Vec<Finding>, PromoteError> {
        let findings = match &new.evaluation {
            Some(job) => self.judge(model, job)?,
            None if new.reason.is_some() => Vec::new(),
            None => return Err(PromoteError::NotEvaluated),
        };
        let missed: Vec<String> = findings.iter().filter(|finding| !finding.is_met).map(Finding::sentence).collect();
        if missed.is_empty() || new.reason.is_some() {
            return Ok(findings);
        }
        Err(PromoteError::Unmet { model: model.name.clone(), missed: missed.join("; ") })
    }

    /// Gives a model a stable name. `record` is called when all is well, before anything is done; what it says stops it.
    ///
    /// # Errors
    /// [`PromoteError`], or what `record` says.
    pub fn promote<E: From<PromoteError>>(
        &self,
        new: NewPromotion,
        record: impl FnOnce(&ModelOrder) -> Result<(), E>,
    ) -> Result<Promotion, E> {
        // Until it is promoted the model is not deleted.
        let _needs = self.hold_needs();
        let model = self.promotable(&new)?;
        let findings = self.findings(&model, &new)?;
        record(&model)?;
        let created_at = now();
        let NewPromotion { name, evaluation, reason, promoted_by, release, gpus, driver, .. } = new;
        let deployed_at = created_at.div_euclid(1000);
        let deployment = Deployment { name: name.clone(), deployed_at, release, gpus, driver };
        let promotion = Promotion {
            id: String::new(),
            name,
            model: model.name,
            evaluation: evaluation.map(|job| job.to_string()),
            findings,
            reason,
            promoted_by,
            deployment,
            created_at,
        };
        let promotion = self.promotions.add(promotion).map_err(PromoteError::from)?;
        if let Some(job) = &model.trained
            && let Err(error) = lineage::note(&self.storage, job, &promotion.deployment)
        {
            // The history of promotions says the same.
            console::say(format_args!("the lineage of {} does not tell of its promotion: {error}", promotion.model));
        }
        Ok(promotion)
    }

    /// The model, if it and the name can be put together.
    fn promotable(&self, new: &NewPromotion) -> Result<ModelOrder, PromoteError> {
        if !is_stable_name(&new.name) {
            return Err(PromoteError::Name);
        }
        if self.catalog.declared.model(&new.name).is_some() {
            return Err(PromoteError::Taken);
        }
        let model = self.model(&new.model)?;
        match &model.trained {
            Some(job) if self.result_of(job.as_str()).is_none() => Err(PromoteError::Gone(model.name)),
            _ => Ok(model),
        }
    }
}
