//! `/v1/appliance/jobs`: jobs of every kind.

use super::{
    Api, ApiError, Asked, Given,
    answers::{List, PageQuery, job_id, seconds},
    blocking,
    fine_tuning::{EventView, event_page},
    recording::Made,
};
use crate::work::{
    Work,
    order::Order,
    submit::{CreateJob, CreateSelfTest},
};
use axum::{
    Json,
    extract::{Path, State},
};
use gap_jobs::{Job, JobId, Kind, State as JobState, queue::Filter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A job of any kind.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JobView {
    id: String,
    /// `appliance.job`.
    object: &'static str,
    /// `train`, `eval`, `serve` or `run`.
    kind: &'static str,
    /// What it is called: for one that serves the name of its model.
    name: String,
    /// The declared job.
    declared: String,
    image: String,
    /// Program and arguments as they are started.
    command: Vec<String>,
    /// `queued`, `running`, `pausing`, `paused`, `cancelling`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    /// For one that serves: whether it answers.
    is_ready: Option<bool>,
    /// Why it is in its state, where there is something to say.
    reason: Option<String>,
    /// What one that is queued, and whose turn has come, still waits for: GPUs, memory, the end of others.
    waits_for: Option<String>,
    /// How often it was started.
    starts: u32,
    priority: i32,
    /// GPUs that it has.
    gpus: Vec<String>,
    /// Memory that it is held to, in bytes.
    memory: u64,
    /// How long it has run in all, in seconds.
    ran_seconds: u64,
    time_limit_seconds: Option<u64>,
    needs: Vec<String>,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl JobView {
    pub(super) fn new(job: Job, work: &Work) -> Self {
        let waits = if job.state == JobState::Queued { waits(work) } else { BTreeMap::new() };
        Self::with(job, work, &waits)
    }

    fn with(job: Job, work: &Work, waits: &BTreeMap<JobId, String>) -> Self {
        let order: Option<Order> = serde_json::from_str(&job.request).ok();
        let (declared, image, command) = match order {
            Some(order) => (order.declared, order.image, order.command),
            None => Default::default(),
        };
        Self {
            object: "appliance.job",
            kind: job.kind.name(),
            declared,
            image,
            command,
            state: job.state.name(),
            is_ready: (job.kind == Kind::Serve).then(|| work.serving.is_ready(&job.id)),
            waits_for: waits.get(&job.id).cloned(),
            starts: job.starts,
            priority: job.priority,
            gpus: job.placement.map(|placement| placement.slots).unwrap_or_default(),
            memory: job.demand.memory,
            ran_seconds: job.ran.as_secs(),
            time_limit_seconds: job.time_limit.map(|limit| limit.as_secs()),
            needs: job.needs.iter().map(JobId::to_string).collect(),
            created_at: seconds(job.created_at),
            started_at: job.started_at.map(seconds),
            finished_at: job.finished_at.map(seconds),
            name: job.name,
            reason: job.reason,
            id: job.id.to_string(),
        }
    }
}

/// What queued jobs wait for. An answer without that is better than none.
fn waits(work: &Work) -> BTreeMap<JobId, String> {
    work.dispatcher.waits().unwrap_or_else(|error| {
        crate::console::say(error);
        BTreeMap::new()
    })
}

/// Which jobs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobsQuery {
    /// Of this kind.
    #[schemars(extend("enum" = ["train", "eval", "serve", "run"]))]
    kind: Option<String>,
    /// In this state.
    #[schemars(extend("enum" = ["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]))]
    state: Option<String>,
    /// Name of the last item of the page before.
    after: Option<String>,
    /// Most items, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Given(request): Given<CreateJob>,
) -> Result<Made<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(made(work.run(&request)?, &work))).await
}

pub(super) async fn self_test(
    State(api): State<Arc<Api>>,
    Given(request): Given<CreateSelfTest>,
) -> Result<Made<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(made(work.self_test(&request)?, &work))).await
}

/// The answer with a new job.
pub(super) fn made(job: Job, work: &Work) -> Made<JobView> {
    Made::new(job.id.to_string(), JobView::new(job, work))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(query): Asked<JobsQuery>,
) -> Result<Json<List<JobView>>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let most = super::answers::limit(query.limit)?;
        let kind = query.kind.as_deref().map(str::parse::<Kind>).transpose();
        let state = query.state.as_deref().map(str::parse::<JobState>).transpose();
        let filter = Filter {
            kinds: kind.map_err(|error| ApiError::invalid("kind", error))?.into_iter().collect(),
            states: state.map_err(|error| ApiError::invalid("state", error))?.into_iter().collect(),
            after: query.after.map(job_id).transpose()?,
            limit: most.saturating_add(1),
            name: None,
        };
        let jobs = work.queue().jobs(&filter)?;
        let has_queued = jobs.iter().any(|job| job.state == JobState::Queued);
        let waits = if has_queued { waits(&work) } else { BTreeMap::new() };
        let views = jobs.into_iter().map(|job| JobView::with(job, &work, &waits)).collect();
        Ok(Json(List::page(views, most, |view: &JobView| view.id.clone())))
    })
    .await
}

pub(super) async fn retrieve(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(JobView::new(work.queue().job(&job_id(id)?)?, &work)))).await
}

pub(super) async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(JobView::new(work.dispatcher.cancel(&job_id(id)?)?, &work)))).await
}

pub(super) async fn pause(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(JobView::new(work.dispatcher.pause(&job_id(id)?)?, &work)))).await
}

pub(super) async fn resume(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(JobView::new(work.dispatcher.resume(&job_id(id)?)?, &work)))).await
}

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<List<EventView>>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        event_page(&work, &job, &page, "appliance.job.event")
    })
    .await
}
