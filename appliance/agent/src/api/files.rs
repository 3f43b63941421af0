//! `/v1/files`: OpenAI's files. Each is checked before anything can be trained on it.

use super::{
    Api, ApiError, Asked, Form,
    answers::{self, List, limit, seconds},
    blocking, bulk,
    recording::Made,
};
use crate::work::{
    checking,
    files::{FileRow, Purpose},
};
use axum::{
    Json,
    extract::{
        Path, State,
        multipart::{Field, MultipartError},
    },
    response::Response,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Longest value of a field that is no file, in bytes.
const MAX_FIELD: usize = 4096;
/// Longest name of a field, in bytes.
const MAX_FIELD_NAME: usize = 64;
/// Longest silence in the middle of an upload.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// A file, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FileView {
    id: String,
    /// `file`.
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: Option<i64>,
    filename: String,
    purpose: &'static str,
    /// `uploaded` while it is checked, `processed` when it was found good, `error` when it was not.
    status: &'static str,
    /// What is wrong with it, or what was found in it.
    status_details: Option<String>,
    /// SHA-256 of its bytes, in hexadecimal.
    sha256: String,
}

impl From<FileRow> for FileView {
    fn from(row: FileRow) -> Self {
        Self {
            id: row.id,
            object: "file",
            bytes: row.bytes,
            created_at: seconds(row.created_at),
            expires_at: None,
            filename: row.filename,
            purpose: row.purpose.name(),
            status: row.status.name(),
            status_details: row.details,
            sha256: row.sha256,
        }
    }
}

/// Which files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesQuery {
    /// Of this purpose.
    #[schemars(extend("enum" = ["fine-tune", "evals", "user_data"]))]
    purpose: Option<String>,
    /// Name of the last item of the page before.
    after: Option<String>,
    /// Most items, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// `desc`: the last that came first. There is no other order.
    #[schemars(extend("enum" = ["desc"]))]
    order: Option<String>,
}

/// What was deleted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl Deleted {
    pub(super) const fn new(id: String, object: &'static str) -> Self {
        Self { id, object, deleted: true }
    }
}

pub(super) fn purpose(text: &str) -> Result<Purpose, ApiError> {
    let unknown = || ApiError::invalid("purpose", "the purposes here are `fine-tune`, `evals` and `user_data`");
    Purpose::named(text).ok_or_else(unknown)
}

/// Takes a file in, as `multipart/form-data` with the fields `file` and `purpose` in any order.
pub(super) async fn create(State(api): State<Arc<Api>>, Form(mut form): Form) -> Result<Made<FileView>, ApiError> {
    let work = api.work()?;
    let (mut wanted, mut received) = (None, None);
    while let Some(mut field) = patient(form.next_field()).await? {
        match field.name() {
            Some("purpose") => wanted = Some(purpose(&text(field).await?)?),
            Some("file") => {
                if received.is_some() {
                    return Err(ApiError::invalid("file", "there is more than one file in the form"));
                }
                let filename = field.file_name().unwrap_or("upload").to_owned();
                let files = Arc::clone(&work);
                let mut incoming = blocking(move || Ok(files.files.receive(0)?)).await?;
                while let Some(bytes) = patient(field.chunk()).await? {
                    incoming = bulk(&work, move || {
                        incoming.write(&bytes)?;
                        Ok(incoming)
                    })
                    .await?;
                }
                received = Some((incoming, filename));
            }
            // OpenAI's `expires_after` and whatever may come: what is kept here is kept until it is deleted.
            other => {
                check_field(other)?;
                drop(text(field).await?);
            }
        }
    }
    let purpose = wanted.ok_or_else(|| ApiError::invalid("purpose", "say what the file is for"))?;
    let (incoming, filename) = received.ok_or_else(|| ApiError::invalid("file", "there is no file in the form"))?;
    let files = Arc::clone(&work);
    let row = bulk(&work, move || Ok(files.files.keep(incoming, &filename, purpose)?)).await?;
    checking::check(work, row.id.clone());
    Ok(Made::new(row.id.clone(), row.into()))
}

/// Whether a field that is passed over has a name that says anything.
pub(super) fn check_field(name: Option<&str>) -> Result<(), ApiError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'[' | b']');
    let is_name = |name: &str| (1..=MAX_FIELD_NAME).contains(&name.len()) && name.bytes().all(is_good);
    let wrong = || ApiError::Invalid {
        message: format!("the name of a field is 1 to {MAX_FIELD_NAME} letters, digits, `_`, `.`, `-`, `[` and `]`"),
        param: None,
    };
    name.filter(|name| is_name(name)).map(drop).ok_or_else(wrong)
}

/// A field that is no file.
async fn text(mut field: Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(piece) = patient(field.chunk()).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_FIELD {
            return Err(ApiError::BodyTooLong);
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::Invalid { message: "the form is not UTF-8".into(), param: None })
}

/// Waits for the client, but not for ever.
pub(super) async fn patient<T>(next: impl Future<Output = Result<T, MultipartError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(SILENCE, next).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ApiError::Invalid { message: error.body_text(), param: None }),
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(query): Asked<FilesQuery>,
) -> Result<Json<List<FileView>>, ApiError> {
    let work = api.work()?;
    let wanted = query.purpose.as_deref().map(purpose).transpose()?;
    if query.order.as_deref().is_some_and(|order| order != "desc") {
        return Err(ApiError::invalid("order", "the order is `desc`"));
    }
    let most = limit(query.limit)?;
    let rows = blocking(move || Ok(work.files.list(wanted, query.after.as_deref(), most.saturating_add(1))?)).await?;
    let views = rows.into_iter().map(FileView::from).collect();
    Ok(Json(List::page(views, most, |view: &FileView| view.id.clone())))
}

pub(super) async fn retrieve(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<FileView>, ApiError> {
    let work = api.work()?;
    blocking(move || Ok(Json(work.files.get(&id)?.into()))).await
}

pub(super) async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let work = api.work()?;
    bulk(&Arc::clone(&work), move || {
        work.delete_file(&id)?;
        Ok(Json(Deleted::new(id, "file")))
    })
    .await
}

pub(super) async fn download(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let work = api.work()?;
    let (path, id) = blocking(move || Ok((work.files.content(&work.files.get(&id)?.id), id))).await?;
    answers::file(move || answers::own(&path), id, "application/octet-stream", "file").await
}

/// What was found in a file: format, duplicates, personal data, lengths, problems (docs/data.md, the card).
pub(super) async fn report(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let work = api.work()?;
    let (path, id) = blocking(move || Ok((work.files.card(&work.files.get(&id)?.id), id))).await?;
    answers::file(move || answers::own(&path), id, "application/json", "report").await
}
