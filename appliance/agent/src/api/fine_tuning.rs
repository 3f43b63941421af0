//! `/v1/fine_tuning/jobs`: OpenAI's fine-tuning.

use super::{
    Api, ApiError, Asked, Given,
    answers::{List, PageQuery, job_id, seconds},
    blocking, bulk,
    recording::Made,
};
use crate::work::{
    Work,
    left::{Left, Lines},
    order::Order,
    submit::{self, CreateFineTuning},
};
use axum::{
    Json,
    extract::{Path, State},
};
use gap_contract::{Metrics, Output};
use gap_jobs::{Job, JobEvent, JobId, Kind, State as JobState, queue::Filter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Seek, SeekFrom},
    sync::Arc,
};

/// Most bytes of `metrics.jsonl` that are read: a million rows.
const MAX_METRICS: u64 = 512 << 20;
/// Longest of its rows, in bytes.
const MAX_ROW: u64 = 64 << 10;
/// Bytes at its end in which its last row is looked for.
const TAIL: u64 = 2 * MAX_ROW;
/// Most checkpoints that are looked at.
const MAX_CHECKPOINTS: usize = 10_000;
/// Prefix of the names of events and checkpoints.
const EVENT: &str = "ftevent";
const CHECKPOINT: &str = "ftckpt";

/// A fine-tuning job, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FineTuningView {
    id: String,
    /// `fine_tuning.job`.
    object: &'static str,
    created_at: i64,
    finished_at: Option<i64>,
    estimated_finish: Option<i64>,
    model: String,
    /// Its name once it is there.
    fine_tuned_model: Option<String>,
    organization_id: &'static str,
    /// `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    status: &'static str,
    error: Option<FineTuningError>,
    hyperparameters: Map<String, Value>,
    method: Value,
    training_file: String,
    validation_file: Option<String>,
    result_files: Vec<String>,
    trained_tokens: Option<u64>,
    seed: u64,
    metadata: BTreeMap<String, String>,
    integrations: Vec<Value>,
    /// What OpenAI's fields cannot say.
    appliance: VendorView,
}

/// What OpenAI's fields cannot say of a fine-tuning job.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VendorView {
    /// The declared job.
    job: String,
    /// The state exactly.
    state: &'static str,
    /// Why it is in that state, where there is something to say.
    reason: Option<String>,
    /// How often it was started.
    starts: u32,
    /// `job.json` as it runs (docs/jobs.md).
    parameters: Value,
    /// GPUs that it has.
    gpus: Vec<String>,
    /// Memory that it is held to, in bytes.
    memory: u64,
    priority: i32,
    needs: Vec<String>,
}

/// Why a fine-tuning job failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FineTuningError {
    code: &'static str,
    message: String,
    param: Option<String>,
}

impl FineTuningView {
    fn new(job: Job, work: &Work) -> Self {
        let order: Option<Order> = serde_json::from_str(&job.request).ok();
        let (declared, asked, parameters) = match order {
            Some(order) => (order.declared, order.asked, order.job.unwrap_or_default()),
            None => Default::default(),
        };
        let error = (job.state == JobState::Failed).then(|| FineTuningError {
            code: "job_failed",
            message: job.reason.clone().unwrap_or_default(),
            param: None,
        });
        let kind = parameters.get("method").and_then(Value::as_str).unwrap_or("supervised").to_owned();
        let method = asked.method.unwrap_or_else(|| json!({"type": kind}));
        Self {
            object: "fine_tuning.job",
            created_at: seconds(job.created_at),
            finished_at: job.finished_at.map(seconds),
            estimated_finish: None,
            model: asked.model.unwrap_or_default(),
            fine_tuned_model: asked.makes.filter(|_| job.state == JobState::Succeeded),
            organization_id: "",
            status: status(job.state),
            error,
            hyperparameters: asked.hyperparameters,
            method,
            training_file: asked.training_file.unwrap_or_default(),
            validation_file: asked.validation_file,
            result_files: Vec::new(),
            trained_tokens: last_metrics(work, &job.id).map(|metrics| metrics.trained_tokens),
            seed: parameters.get("seed").and_then(Value::as_u64).or(asked.seed).unwrap_or_default(),
            metadata: asked.metadata,
            integrations: Vec::new(),
            appliance: VendorView {
                job: declared,
                state: job.state.name(),
                reason: job.reason,
                starts: job.starts,
                parameters,
                gpus: job.placement.map(|placement| placement.slots).unwrap_or_default(),
                memory: job.demand.memory,
                priority: job.priority,
                needs: job.needs.iter().map(JobId::to_string).collect(),
            },
            id: job.id.to_string(),
        }
    }
}

/// OpenAI's word for a state.
const fn status(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running | JobState::Pausing | JobState::Cancelling => "running",
        JobState::Paused => "paused",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// An event of a fine-tuning job, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventView {
    id: String,
    /// `fine_tuning.job.event`.
    object: &'static str,
    created_at: i64,
    level: &'static str,
    message: String,
    /// `message`.
    r#type: &'static str,
    data: Value,
}

impl EventView {
    pub(super) fn new(event: JobEvent, object: &'static str) -> Self {
        Self {
            id: format!("{EVENT}-{}", event.sequence),
            object,
            created_at: seconds(event.at),
            level: event.level.name(),
            message: event.message,
            r#type: "message",
            data: event.data.and_then(|data| serde_json::from_str(&data).ok()).unwrap_or_else(|| json!({})),
        }
    }
}

/// A checkpoint of a fine-tuning job, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckpointView {
    id: String,
    /// `fine_tuning.job.checkpoint`.
    object: &'static str,
    created_at: i64,
    fine_tuning_job_id: String,
    /// Where its files are: a directory of the job's outputs.
    fine_tuned_model_checkpoint: String,
    step_number: u64,
    metrics: Value,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Given(request): Given<CreateFineTuning>,
) -> Result<Made<FineTuningView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.fine_tune(&request)?;
        submit::compare(Arc::clone(&work), &job);
        Ok(Made::new(job.id.to_string(), FineTuningView::new(job, &work)))
    })
    .await
}

/// Which fine-tuning jobs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FineTuningQuery {
    /// Name of the last item of the page before.
    after: Option<String>,
    /// Most items, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(query): Asked<FineTuningQuery>,
) -> Result<Json<List<FineTuningView>>, ApiError> {
    let work = api.work()?;
    let page = PageQuery { after: query.after, limit: query.limit };
    blocking(move || {
        let most = page.limit()?;
        let filter = Filter {
            kinds: vec![Kind::Train],
            after: page.after.map(job_id).transpose()?,
            limit: most.saturating_add(1),
            ..Filter::default()
        };
        let views = work.queue().jobs(&filter)?.into_iter().map(|job| FineTuningView::new(job, &work)).collect();
        Ok(Json(List::page(views, most, |view: &FineTuningView| view.id.clone())))
    })
    .await
}

/// The fine-tuning job of this name.
fn find(work: &Work, id: String) -> Result<Job, ApiError> {
    let job = work.queue().job(&job_id(id)?)?;
    if job.kind == Kind::Train { Ok(job) } else { Err(ApiError::not_found("job", job.id.as_str())) }
}

pub(super) async fn retrieve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<FineTuningView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(FineTuningView::new(find(&work, id)?, &work)))).await
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<FineTuningView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.dispatcher.cancel(&find(&work, id)?.id)?;
        Ok(Json(FineTuningView::new(job, &work)))
    })
    .await
}

pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<FineTuningView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.dispatcher.pause(&find(&work, id)?.id)?;
        Ok(Json(FineTuningView::new(job, &work)))
    })
    .await
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<FineTuningView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.dispatcher.resume(&find(&work, id)?.id)?;
        Ok(Json(FineTuningView::new(job, &work)))
    })
    .await
}

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<List<EventView>>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = find(&work, id)?;
        event_page(&work, &job, &page, "fine_tuning.job.event")
    })
    .await
}

/// A page of a job's events, the newest first.
pub(super) fn event_page(
    work: &Work,
    job: &Job,
    page: &PageQuery,
    object: &'static str,
) -> Result<Json<List<EventView>>, ApiError> {
    let most = page.limit()?;
    let sequence = |id: &String| id.strip_prefix(EVENT).and_then(|rest| rest.strip_prefix('-')?.parse::<i64>().ok());
    let before = match &page.after {
        Some(id) => sequence(id).ok_or_else(|| ApiError::not_found("event", id))?,
        None => i64::MAX,
    };
    let events = work.queue().last_events(&job.id, before, most.saturating_add(1))?;
    let views = events.into_iter().map(|event| EventView::new(event, object)).collect();
    Ok(Json(List::page(views, most, |view: &EventView| view.id.clone())))
}

pub(super) async fn checkpoints(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<List<CheckpointView>>, ApiError> {
    let work = api.work()?;
    // All that it measured is read.
    bulk(&Arc::clone(&work), move || {
        let job = find(&work, id)?;
        let most = page.limit()?;
        let mut views = all_checkpoints(&work, &job);
        if let Some(after) = &page.after {
            let passed = views.iter().position(|view| view.id == *after);
            let passed = passed.ok_or_else(|| ApiError::not_found("checkpoint", after))?;
            views.drain(..=passed);
        }
        Ok(Json(List::page(views, most, |view: &CheckpointView| view.id.clone())))
    })
    .await
}

/// The checkpoints that lie there now, the last first.
fn all_checkpoints(work: &Work, job: &Job) -> Vec<CheckpointView> {
    let Ok(left) = Left::open(&work.storage.output(job.id.as_str())) else { return Vec::new() };
    let checkpoints = Output::new("").checkpoints();
    let entries = left.entries(&checkpoints, MAX_CHECKPOINTS).unwrap_or_default();
    let mut steps: Vec<(u64, i64)> = entries
        .into_iter()
        .filter_map(|entry| {
            let step = Output::checkpoint_step(entry.name.to_str()?)?;
            let written = left.directory(&checkpoints.join(entry.name)).ok()?.metadata().ok()?.modified().ok()?;
            let written = written.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some((step, i64::try_from(written.as_secs()).unwrap_or(i64::MAX)))
        })
        .collect();
    let metrics = metrics_of(&left, &steps.iter().map(|(step, _)| *step).collect());
    steps.sort_unstable_by_key(|(step, _)| std::cmp::Reverse(*step));
    let view = |(step, created_at): (u64, i64)| CheckpointView {
        id: format!("{CHECKPOINT}-{}-{step}", job.id),
        object: "fine_tuning.job.checkpoint",
        created_at,
        fine_tuning_job_id: job.id.to_string(),
        fine_tuned_model_checkpoint: format!("/v1/appliance/jobs/{}/outputs/checkpoints/step-{step:08}", job.id),
        step_number: step,
        metrics: metrics.get(&step).map_or_else(|| json!({"step": step}), |row| json!(row)),
    };
    steps.into_iter().map(view).collect()
}

/// What these steps measured, as far as it can be read.
fn metrics_of(left: &Left, steps: &BTreeSet<u64>) -> BTreeMap<u64, Metrics> {
    if steps.is_empty() {
        return BTreeMap::new();
    }
    let Ok(file) = left.file(&Output::new("").metrics()) else { return BTreeMap::new() };
    let rows = Lines::new(file, MAX_ROW, MAX_METRICS).map_while(Result::ok);
    let rows = rows.filter_map(|row| serde_json::from_slice::<Metrics>(&row).ok());
    rows.filter(|row| steps.contains(&row.step)).map(|row| (row.step, row)).collect()
}

/// What the last step measured. Only the end of the rows is read: many jobs are looked at in a row.
fn last_metrics(work: &Work, id: &JobId) -> Option<Metrics> {
    let left = Left::open(&work.storage.output(id.as_str())).ok()?;
    let mut file = left.file(&Output::new("").metrics()).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL))).ok()?;
    let rows = Lines::new(file, MAX_ROW, TAIL).map_while(Result::ok);
    rows.filter_map(|row| serde_json::from_slice(&row).ok()).last()
}
