//! `/v1/models`: models of the release, those that were fine-tuned here, and which of them are served.

use super::{Api, ApiError, answers::seconds, blocking};
use crate::work::{Work, order::Order};
use axum::{
    Json,
    extract::{Path, State},
};
use gap_jobs::{Kind, State as JobState, queue::Filter};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::BTreeSet, sync::Arc};

/// Most fine-tuned models that are listed, the newest.
const MAX_TRAINED: usize = 1000;
/// Most servers that are looked at.
const MAX_SERVERS: usize = 1000;

/// A model, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelView {
    id: String,
    /// `model`.
    object: &'static str,
    created: i64,
    /// `release`, the job that made it, or the promotion that gave it this stable name.
    owned_by: String,
    /// The model that it was trained from, or that the stable name stands for.
    parent: Option<String>,
    /// Whether it answers now.
    is_served: bool,
}

/// All models.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Models {
    /// `list`.
    object: &'static str,
    data: Vec<ModelView>,
}

fn all(work: &Work) -> Result<Vec<ModelView>, ApiError> {
    let filter = |kind, state, limit| Filter { kinds: vec![kind], states: vec![state], limit, ..Filter::default() };
    let servers = work.queue().jobs(&filter(Kind::Serve, JobState::Running, MAX_SERVERS))?;
    let served: BTreeSet<String> =
        servers.into_iter().filter(|job| work.serving.is_ready(&job.id)).map(|job| job.name).collect();
    let of_release = work.catalog.declared.models.iter().map(|model| ModelView {
        id: model.name.clone(),
        object: "model",
        created: 0,
        owned_by: "release".to_owned(),
        parent: None,
        is_served: served.contains(&model.name),
    });
    let trained = work.queue().jobs(&filter(Kind::Train, JobState::Succeeded, MAX_TRAINED))?;
    let trained = trained.into_iter().filter(|job| work.result_of(job.id.as_str()).is_some()).map(|job| {
        let order: Option<Order> = serde_json::from_str(&job.request).ok();
        ModelView {
            object: "model",
            created: job.finished_at.map_or(0, seconds),
            owned_by: job.id.to_string(),
            parent: order.and_then(|order| order.asked.model),
            is_served: served.contains(&job.name),
            id: job.name,
        }
    });
    let stable = work.promotions.current().into_iter().filter(|one| work.resolve(&one.name) == one.model);
    let stable = stable.map(|one| ModelView {
        object: "model",
        created: seconds(one.created_at),
        is_served: served.contains(&one.model),
        owned_by: one.id,
        parent: Some(one.model),
        id: one.name,
    });
    Ok(of_release.chain(trained).chain(stable).collect())
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Models>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(Models { object: "list", data: all(&work)? }))).await
}

pub(super) async fn retrieve(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ModelView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let found = all(&work)?.into_iter().find(|model| model.id == name);
        found.map(Json).ok_or_else(|| ApiError::not_found("model", name))
    })
    .await
}
