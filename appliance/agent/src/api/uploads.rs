//! `/v1/uploads`: OpenAI's uploads in parts.

use super::{
    Api, ApiError, Form, Given,
    answers::seconds,
    blocking, bulk,
    files::{FileView, check_field, patient, purpose},
    recording::Made,
};
use crate::work::{
    checking,
    files::{FileRow, MAX_FILE},
    uploads::{Part, Upload},
};
use axum::{
    Json,
    extract::{Path, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An upload to begin.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CreateUpload {
    /// Name of the file.
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,255}$"))]
    filename: String,
    /// What it is for.
    #[schemars(extend("enum" = ["fine-tune", "evals", "user_data"]))]
    purpose: String,
    /// Its length in bytes.
    #[schemars(range(max = 8_589_934_592_u64))]
    bytes: u64,
    /// Its media type.
    mime_type: String,
}

/// Which parts make up the file, in this order.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CompleteUpload {
    part_ids: Vec<String>,
}

/// An upload, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UploadView {
    id: String,
    /// `upload`.
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: i64,
    filename: String,
    purpose: &'static str,
    /// `pending`, `completed`, `cancelled` or `expired`.
    status: &'static str,
    file: Option<FileView>,
}

impl UploadView {
    fn new(upload: Upload, file: Option<FileRow>) -> Self {
        Self {
            id: upload.id,
            object: "upload",
            bytes: upload.bytes,
            created_at: seconds(upload.created_at),
            expires_at: seconds(upload.expires_at),
            filename: upload.filename,
            purpose: upload.purpose.name(),
            status: upload.status.name(),
            file: file.map(FileView::from),
        }
    }
}

/// An upload, and what of it has arrived.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UploadState {
    #[serde(flatten)]
    upload: UploadView,
    /// The parts that were kept, in the order in which they came; none of an upload that is over.
    parts: Vec<KeptPart>,
}

/// A part that was kept.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeptPart {
    id: String,
    bytes: u64,
}

/// A part, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PartView {
    id: String,
    /// `upload.part`.
    object: &'static str,
    created_at: i64,
    upload_id: String,
}

impl From<Part> for PartView {
    fn from(part: Part) -> Self {
        Self { id: part.id, object: "upload.part", created_at: seconds(part.created_at), upload_id: part.upload }
    }
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Given(request): Given<CreateUpload>,
) -> Result<Made<UploadView>, ApiError> {
    let work = api.work()?;
    let purpose = purpose(&request.purpose)?;
    if request.bytes > MAX_FILE {
        return Err(ApiError::invalid("bytes", format!("a file has at most {MAX_FILE} bytes")));
    }
    blocking(move || {
        let upload = work.uploads.begin(&request.filename, purpose, &request.mime_type, request.bytes)?;
        Ok(Made::new(upload.id.clone(), UploadView::new(upload, None)))
    })
    .await
}

/// Takes a part in, as `multipart/form-data` with the field `data`.
pub(super) async fn add_part(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Form(mut form): Form,
) -> Result<Made<PartView>, ApiError> {
    let work = api.work()?;
    while let Some(mut field) = patient(form.next_field()).await? {
        if field.name() != Some("data") {
            check_field(field.name())?;
            continue;
        }
        let here = Arc::clone(&work);
        let mut incoming = blocking(move || Ok(here.uploads.receive(&id, &here.files)?)).await?;
        while let Some(bytes) = patient(field.chunk()).await? {
            incoming = bulk(&work, move || {
                incoming.write(&bytes)?;
                Ok(incoming)
            })
            .await?;
        }
        let here = Arc::clone(&work);
        let part = bulk(&work, move || Ok(here.uploads.keep(incoming)?)).await?;
        return Ok(Made::new(part.id.clone(), part.into()));
    }
    Err(ApiError::invalid("data", "there is no part in the form"))
}

pub(super) async fn complete(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Given(request): Given<CompleteUpload>,
) -> Result<Made<UploadView>, ApiError> {
    let work = api.work()?;
    let here = Arc::clone(&work);
    let (upload, file) = bulk(&work, move || Ok(here.uploads.complete(&id, &request.part_ids, &here.files)?)).await?;
    checking::check(work, file.id.clone());
    Ok(Made::new(file.id.clone(), UploadView::new(upload, Some(file))))
}

pub(super) async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<UploadView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(UploadView::new(work.uploads.cancel(&id)?, None)))).await
}

pub(super) async fn retrieve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<UploadState>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let upload = work.uploads.get(&id)?;
        let file = upload.file.as_deref().map(|file| work.files.get(file)).transpose()?;
        let parts = work.uploads.parts(&upload)?.into_iter().map(|(id, bytes)| KeptPart { id, bytes }).collect();
        Ok(Json(UploadState { upload: UploadView::new(upload, file), parts }))
    })
    .await
}
