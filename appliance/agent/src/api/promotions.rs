//! `/v1/appliance/promotions`: stable names of models, and how they came by them.

use super::{
    Api, ApiError, Asked, Given, Peer, System,
    answers::{List, job_id, limit, seconds},
    blocking,
    recording::Made,
};
use crate::{
    access::{Caller, Role},
    work::{
        order::ModelOrder,
        promotion::{Finding, NewPromotion, PromoteError, Promotion, PromotionsError, Unjudged},
    },
};
use axum::{
    Extension, Json,
    extract::{Path, State},
};
use gap_contract::Release;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest reason, in characters.
const MAX_REASON: usize = 500;

/// A model to give a stable name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePromotion {
    /// The stable name: 1 to 64 letters, digits, `-`, `_` and `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    name: String,
    /// The model that it stands for from now on.
    model: String,
    /// The job of kind `eval` that measured the model.
    #[serde(default)]
    evaluation: Option<String>,
    /// Why the model is promoted although it was not found good enough, or not measured; an admin's, and audited.
    #[serde(default)]
    #[schemars(
        length(max = 500),
        regex(
            pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
        )
    )]
    override_reason: Option<String>,
}

/// A promotion.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PromotionView {
    id: String,
    /// `appliance.promotion`.
    object: &'static str,
    name: String,
    model: String,
    evaluation: Option<String>,
    /// What the release demands, and what was measured.
    findings: Vec<Finding>,
    /// Why it was promoted without that.
    override_reason: Option<String>,
    /// Name of the token.
    promoted_by: String,
    /// The release that it was deployed on.
    release: ReleaseView,
    /// What its maker calls each GPU of the machine.
    gpus: Vec<String>,
    /// Version of the GPUs' driver.
    driver: Option<String>,
    created_at: i64,
}

/// A release of the appliance.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReleaseView {
    name: String,
    version: String,
    /// SHA-256 of its index.
    digest: String,
}

impl From<Promotion> for PromotionView {
    fn from(promotion: Promotion) -> Self {
        let Release { name, version, digest } = promotion.deployment.release;
        Self {
            id: promotion.id,
            object: "appliance.promotion",
            name: promotion.name,
            model: promotion.model,
            evaluation: promotion.evaluation,
            findings: promotion.findings,
            override_reason: promotion.reason,
            promoted_by: promotion.promoted_by,
            release: ReleaseView { name, version, digest },
            gpus: promotion.deployment.gpus,
            driver: promotion.deployment.driver,
            created_at: seconds(promotion.created_at),
        }
    }
}

impl From<PromotionsError> for ApiError {
    fn from(error: PromotionsError) -> Self {
        match error {
            PromotionsError::None(id) => Self::not_found("promotion", id),
            PromotionsError::TooMany => Self::Conflict(error.to_string()),
            PromotionsError::Database(_) => {
                crate::console::say(error);
                Self::Internal
            }
        }
    }
}

impl From<PromoteError> for ApiError {
    fn from(error: PromoteError) -> Self {
        match error {
            PromoteError::Name => Self::invalid("name", error),
            PromoteError::Model(error) => error.into(),
            PromoteError::NotEvaluated => Self::invalid("evaluation", error),
            PromoteError::Unjudged(Unjudged::Queue(error)) => error.into(),
            PromoteError::Taken | PromoteError::Gone(_) | PromoteError::Unjudged(_) | PromoteError::Unmet { .. } => {
                Self::Conflict(error.to_string())
            }
            PromoteError::Promotions(error) => error.into(),
        }
    }
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(Peer(address)): Extension<Peer>,
    Given(request): Given<CreatePromotion>,
) -> Result<Made<PromotionView>, ApiError> {
    let reason = request.override_reason.map(|reason| checked_reason(&caller, reason)).transpose()?;
    let work = api.work()?;
    let (release, gpus, driver) = machine(&api.system);
    let new = NewPromotion {
        name: request.name,
        model: request.model,
        evaluation: request.evaluation.map(job_id).transpose()?,
        reason,
        promoted_by: caller.name.clone(),
        release,
        gpus,
        driver,
    };
    blocking(move || {
        let (name, reason) = (new.name.clone(), new.reason.clone());
        // That something is promoted is recorded in any case; that an admin sets what was demanded aside, with the reason.
        let record = |model: &ModelOrder| {
            let Some(reason) = reason else { return Ok(()) };
            let what = format!("override: {} becomes {name} whatever the release demands: {reason}", model.name);
            api.record_here(&caller, address, &what, "asked")
        };
        let promotion = work.promote(new, record)?;
        Ok(Made::new(promotion.id.clone(), promotion.into()))
    })
    .await
}

fn checked_reason(caller: &Caller, reason: String) -> Result<String, ApiError> {
    if caller.role < Role::Admin {
        return Err(ApiError::Forbidden(Role::Admin));
    }
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        let message = format!("a reason is a sentence of at most {MAX_REASON} characters without control characters");
        return Err(ApiError::invalid("override_reason", message));
    }
    Ok(reason)
}

/// What models are deployed on.
fn machine(system: &System) -> (Release, Vec<String>, Option<String>) {
    let gap_handover::boot_report::Release { name, version, index, .. } = &system.report.release;
    let release = Release { name: name.clone(), version: version.clone(), digest: index.to_hex() };
    let Some(provisioned) = system.gpus.get() else { return (release, Vec::new(), None) };
    let models = provisioned.gpus.iter().map(|gpu| gpu.model.clone().unwrap_or_else(|| gpu.device.clone()));
    (release, models.collect(), provisioned.driver.clone())
}

/// Which promotions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionsQuery {
    /// Of this stable name.
    name: Option<String>,
    /// Name of the last item of the page before.
    after: Option<String>,
    /// Most items, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(query): Asked<PromotionsQuery>,
) -> Result<Json<List<PromotionView>>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let most = limit(query.limit)?;
        let found = work.promotions.list(query.name.as_deref(), query.after.as_deref(), most.saturating_add(1))?;
        let views = found.into_iter().map(PromotionView::from).collect();
        Ok(Json(List::page(views, most, |view: &PromotionView| view.id.clone())))
    })
    .await
}

pub(super) async fn retrieve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<PromotionView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(work.promotions.get(&id)?.into()))).await
}
