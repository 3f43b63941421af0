//! What the release declares, and what the data volume is.

use super::{Api, ApiError, blocking};
use crate::work::storage::Volume;
use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// The data volume.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StorageView {
    volume: Volume,
    /// Bytes free for jobs and files.
    free: u64,
    /// Bytes in all.
    total: u64,
    /// Memory that there is for jobs, in bytes.
    memory: u64,
    /// GPUs that there are for jobs.
    gpus: Vec<String>,
}

pub(super) async fn storage(State(api): State<Arc<Api>>) -> Result<Json<StorageView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let (free, total) = work.storage.space().map_err(|_| ApiError::Internal)?;
        Ok(Json(StorageView {
            volume: work.storage.volume().clone(),
            free,
            total,
            memory: work.machine.memory,
            gpus: work.machine.slots.iter().map(|slot| slot.name.clone()).collect(),
        }))
    })
    .await
}

/// The document of the release (docs/format.md, section 12).
pub(super) async fn declared(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let work = api.work()?;
    serde_json::to_value(&work.catalog.declared).map(Json).map_err(|_| ApiError::Internal)
}
