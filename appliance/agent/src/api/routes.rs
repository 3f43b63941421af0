//! All paths of the API: what each takes, whom it answers, and whether it changes something.

use super::{
    Api, MAX_BODY, access, claim, files, fine_tuning, health, inference, jobs, metrics, models, outputs, power_off,
    promotions, rate::Pace, reboot, release, show_system, terminal, uploads,
};
use crate::access::Role;
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;

/// Longest body of a request to a model, in bytes: pictures and long documents travel in it.
const MAX_PROMPT: usize = 16 << 20;

/// Longest list of parts of an upload, in bytes.
const MAX_PARTS: usize = 1 << 20;

/// One path with one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// With `{name}` for what varies.
    pub path: &'static str,
    /// Its name in the OpenAPI document.
    pub operation: &'static str,
    /// Who may ask.
    pub needs: Needs,
    /// Whether it changes something, so that it is recorded.
    pub is_change: bool,
    /// Longest body that is read before the handler sees the request; absent where the handler reads it bit by bit.
    pub max_body: Option<usize>,
    /// How often it may be asked for.
    pub pace: Pace,
}

/// Whom a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Everybody.
    Nothing,
    /// Who knows the code that the console shows; the handler looks at it, and records what is asked for.
    Code,
    /// Who has a token of this role or a higher one.
    Role(Role),
}

impl Route {
    const fn open(path: &'static str, operation: &'static str) -> Self {
        Self { needs: Needs::Nothing, ..Self::look(path, operation, Role::Viewer) }
    }

    const fn code(path: &'static str, operation: &'static str) -> Self {
        Self { needs: Needs::Code, ..Self::change(path, operation, Role::Admin) }
    }

    const fn look(path: &'static str, operation: &'static str, role: Role) -> Self {
        Self { method: "get", is_change: false, ..Self::change(path, operation, role) }
    }

    const fn change(path: &'static str, operation: &'static str, role: Role) -> Self {
        let needs = Needs::Role(role);
        let (max_body, pace) = (Some(MAX_BODY), Pace::Usual);
        Self { method: "post", path, operation, needs, is_change: true, max_body, pace }
    }

    const fn delete(path: &'static str, operation: &'static str, role: Role) -> Self {
        Self { method: "delete", ..Self::change(path, operation, role) }
    }

    const fn stream(path: &'static str, operation: &'static str) -> Self {
        Self { max_body: None, pace: Pace::Bulk, ..Self::change(path, operation, Role::Operator) }
    }

    const fn model(path: &'static str, operation: &'static str) -> Self {
        let max_body = Some(MAX_PROMPT);
        Self { is_change: false, max_body, pace: Pace::Bulk, ..Self::change(path, operation, Role::Viewer) }
    }
}

use Role::{Admin, Operator, Viewer};

/// Every path with its method.
pub const ROUTES: [Route; 55] = [
    Route::open("/healthz", "health"),
    Route::open("/openapi.json", "description"),
    Route::look("/metrics", "metrics", Viewer),
    Route::look("/v1/system", "system", Viewer),
    Route::change("/v1/system/poweroff", "powerOff", Admin),
    Route::change("/v1/system/reboot", "reboot", Admin),
    // OpenAI's.
    Route::stream("/v1/files", "createFile"),
    Route::look("/v1/files", "listFiles", Viewer),
    Route::look("/v1/files/{file_id}", "retrieveFile", Viewer),
    Route::delete("/v1/files/{file_id}", "deleteFile", Operator),
    Route::look("/v1/files/{file_id}/content", "downloadFile", Operator),
    Route::change("/v1/uploads", "createUpload", Operator),
    Route::stream("/v1/uploads/{upload_id}/parts", "addUploadPart"),
    Route {
        max_body: Some(MAX_PARTS),
        ..Route::change("/v1/uploads/{upload_id}/complete", "completeUpload", Operator)
    },
    Route::change("/v1/uploads/{upload_id}/cancel", "cancelUpload", Operator),
    Route::change("/v1/fine_tuning/jobs", "createFineTuningJob", Operator),
    Route::look("/v1/fine_tuning/jobs", "listFineTuningJobs", Viewer),
    Route::look("/v1/fine_tuning/jobs/{job_id}", "retrieveFineTuningJob", Viewer),
    Route::change("/v1/fine_tuning/jobs/{job_id}/cancel", "cancelFineTuningJob", Operator),
    Route::change("/v1/fine_tuning/jobs/{job_id}/pause", "pauseFineTuningJob", Operator),
    Route::change("/v1/fine_tuning/jobs/{job_id}/resume", "resumeFineTuningJob", Operator),
    Route::look("/v1/fine_tuning/jobs/{job_id}/events", "listFineTuningEvents", Viewer),
    Route::look("/v1/fine_tuning/jobs/{job_id}/checkpoints", "listFineTuningCheckpoints", Viewer),
    Route::look("/v1/models", "listModels", Viewer),
    Route::look("/v1/models/{model}", "retrieveModel", Viewer),
    Route::model("/v1/chat/completions", "createChatCompletion"),
    Route::model("/v1/completions", "createCompletion"),
    Route::model("/v1/embeddings", "createEmbedding"),
    // The appliance's own.
    Route::look("/v1/appliance/declared", "declared", Viewer),
    Route::look("/v1/appliance/storage", "storage", Viewer),
    Route::look("/v1/appliance/files/{file_id}/report", "fileReport", Viewer),
    Route::look("/v1/appliance/uploads/{upload_id}", "retrieveUpload", Viewer),
    Route::change("/v1/appliance/jobs", "createJob", Operator),
    Route::look("/v1/appliance/jobs", "listJobs", Viewer),
    Route::look("/v1/appliance/jobs/{job_id}", "retrieveJob", Viewer),
    Route::change("/v1/appliance/jobs/{job_id}/cancel", "cancelJob", Operator),
    Route::change("/v1/appliance/jobs/{job_id}/pause", "pauseJob", Operator),
    Route::change("/v1/appliance/jobs/{job_id}/resume", "resumeJob", Operator),
    Route::look("/v1/appliance/jobs/{job_id}/events", "listJobEvents", Viewer),
    Route::look("/v1/appliance/jobs/{job_id}/log", "jobLog", Operator),
    Route::look("/v1/appliance/jobs/{job_id}/metrics", "jobMetrics", Viewer),
    Route::look("/v1/appliance/jobs/{job_id}/outputs", "listOutputs", Viewer),
    Route::delete("/v1/appliance/jobs/{job_id}/outputs", "deleteOutputs", Operator),
    Route::look("/v1/appliance/jobs/{job_id}/outputs/{*path}", "downloadOutput", Operator),
    Route { method: "get", ..Route::change("/v1/appliance/jobs/{job_id}/terminal", "jobTerminal", Admin) },
    Route::change("/v1/appliance/debug", "createDebugJob", Admin),
    Route::change("/v1/appliance/selftest", "createSelfTest", Operator),
    Route::change("/v1/appliance/promotions", "createPromotion", Operator),
    Route::look("/v1/appliance/promotions", "listPromotions", Viewer),
    Route::look("/v1/appliance/promotions/{promotion_id}", "retrievePromotion", Viewer),
    Route::code("/v1/appliance/claim", "claim"),
    Route::look("/v1/appliance/tokens", "listTokens", Admin),
    Route::change("/v1/appliance/tokens", "createToken", Admin),
    Route::delete("/v1/appliance/tokens/{token_id}", "revokeToken", Admin),
    Route::look("/v1/appliance/audit", "audit", Admin),
];

/// The handler of an operation. One that is in [`ROUTES`] and not here answers that there is no such path, which a test
/// would see.
pub(super) fn handler(operation: &str) -> MethodRouter<Arc<Api>> {
    match operation {
        "health" => get(health),
        "description" => get(super::openapi),
        "metrics" => get(metrics::show),
        "system" => get(show_system),
        "powerOff" => post(power_off),
        "reboot" => post(reboot),
        "createFile" => post(files::create),
        "listFiles" => get(files::list),
        "retrieveFile" => get(files::retrieve),
        "deleteFile" => delete(files::delete),
        "downloadFile" => get(files::download),
        "createUpload" => post(uploads::create),
        "addUploadPart" => post(uploads::add_part),
        "completeUpload" => post(uploads::complete),
        "cancelUpload" => post(uploads::cancel),
        "createFineTuningJob" => post(fine_tuning::create),
        "listFineTuningJobs" => get(fine_tuning::list),
        "retrieveFineTuningJob" => get(fine_tuning::retrieve),
        "cancelFineTuningJob" => post(fine_tuning::cancel),
        "pauseFineTuningJob" => post(fine_tuning::pause),
        "resumeFineTuningJob" => post(fine_tuning::resume),
        "listFineTuningEvents" => get(fine_tuning::events),
        "listFineTuningCheckpoints" => get(fine_tuning::checkpoints),
        "listModels" => get(models::list),
        "retrieveModel" => get(models::retrieve),
        "createChatCompletion" | "createCompletion" | "createEmbedding" => post(inference::forward),
        "declared" => get(release::declared),
        "storage" => get(release::storage),
        "fileReport" => get(files::report),
        "retrieveUpload" => get(uploads::retrieve),
        "createJob" => post(jobs::create),
        "listJobs" => get(jobs::list),
        "retrieveJob" => get(jobs::retrieve),
        "cancelJob" => post(jobs::cancel),
        "pauseJob" => post(jobs::pause),
        "resumeJob" => post(jobs::resume),
        "listJobEvents" => get(jobs::events),
        "jobLog" => get(outputs::log),
        "jobMetrics" => get(outputs::metrics),
        "listOutputs" => get(outputs::list),
        "deleteOutputs" => delete(outputs::delete),
        "downloadOutput" => get(outputs::download),
        "jobTerminal" => get(terminal::attach),
        "createDebugJob" => post(terminal::create),
        "createSelfTest" => post(jobs::self_test),
        "createPromotion" => post(promotions::create),
        "listPromotions" => get(promotions::list),
        "retrievePromotion" => get(promotions::retrieve),
        "claim" => post(claim::claim),
        "listTokens" => get(access::list),
        "createToken" => post(access::create),
        "revokeToken" => delete(access::revoke),
        "audit" => get(access::audit),
        _ => MethodRouter::new(),
    }
}
