//! Shapes that several resources share.

use super::{ApiError, blocking};
use crate::work::{
    catalog::ImageError, files::FilesError, left::Left, need::DeleteError, submit::SubmitError, uploads::UploadError,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use gap_jobs::{JobId, QueueError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fs::File, io, path::Path};
use tokio::io::AsyncReadExt;

/// Most items of a page.
pub const MAX_PAGE: usize = 1000;
/// Items of a page when nothing is said.
const PAGE: usize = 20;
/// Bytes that are read from a file at a time.
const PIECE: usize = 128 << 10;

/// A page of a list, in OpenAI's shape.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List<T> {
    /// `list`.
    pub object: &'static str,
    /// The items.
    pub data: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// Name of the first item.
    pub first_id: Option<String>,
    /// Name of the last item, after which the next page begins.
    pub last_id: Option<String>,
}

impl<T> List<T> {
    /// A page of at most `limit` of these items; they were asked for with one more, which tells whether there are more.
    pub fn page(mut data: Vec<T>, limit: usize, id: impl Fn(&T) -> String) -> Self {
        let has_more = data.len() > limit;
        data.truncate(limit);
        let (first_id, last_id) = (data.first().map(&id), data.last().map(&id));
        Self { object: "list", data, has_more, first_id, last_id }
    }
}

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Name of the last item of the page before.
    pub after: Option<String>,
    /// Most items, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
}

impl PageQuery {
    /// Most items.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when it is out of range.
    pub fn limit(&self) -> Result<usize, ApiError> {
        limit(self.limit)
    }
}

/// Most items of a page, checked.
pub fn limit(asked: Option<usize>) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(PAGE);
    let is_good = (1..=MAX_PAGE).contains(&limit);
    is_good.then_some(limit).ok_or_else(|| ApiError::invalid("limit", format!("it is 1 to {MAX_PAGE}")))
}

/// The name of a job in a path.
pub fn job_id(text: String) -> Result<JobId, ApiError> {
    JobId::try_from(text.clone()).map_err(|_| ApiError::not_found("job", text))
}

/// Seconds since 1970, as OpenAI has times.
pub const fn seconds(millis: i64) -> i64 {
    millis.div_euclid(1000)
}

/// A file that lies in a directory of the agent's own.
///
/// # Errors
/// What the system said.
pub fn own(path: &Path) -> io::Result<File> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    Left::open(directory)?.file(name.as_ref())
}

/// A file as the answer, read bit by bit. Where it cannot be opened there is no `what` of this `name`.
pub async fn file(
    open: impl FnOnce() -> io::Result<File> + Send + 'static,
    name: String,
    kind: &'static str,
    what: &'static str,
) -> Result<Response, ApiError> {
    let opened = blocking(move || {
        let file = open().map_err(|_| ApiError::not_found(what, name))?;
        let len = file.metadata().map_err(|_| ApiError::Internal)?.len();
        Ok((file, len))
    });
    let (file, len) = opened.await?;
    let file = tokio::fs::File::from_std(file);
    let pieces = stream::unfold(file.take(len), move |mut file| async move {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok::<_, std::io::Error>(piece), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// What went wrong inside is for the console, not for the client.
fn internal(error: impl std::fmt::Display) -> ApiError {
    crate::console::say(error);
    ApiError::Internal
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::None(name) => Self::not_found("file", name),
            FilesError::Name => Self::invalid("filename", error),
            FilesError::TooLong => Self::BodyTooLong,
            FilesError::TooMany => Self::Conflict(error.to_string()),
            FilesError::NoSpace { .. } => Self::NoSpace(error.to_string()),
            FilesError::Io(ref io) if io.kind() == std::io::ErrorKind::StorageFull => Self::NoSpace(error.to_string()),
            FilesError::Database(_) | FilesError::Io(_) => internal(error),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::File(error) => error.into(),
            UploadError::None(name) => Self::not_found("upload", name),
            UploadError::Over(_) | UploadError::TooMany => Self::Conflict(error.to_string()),
            UploadError::Part => Self::BodyTooLong,
            UploadError::NoPart(_) => Self::invalid("part_ids", error),
            UploadError::Length { .. } => Self::invalid("bytes", error),
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::NoJob(id) => Self::not_found("job", id.as_str()),
            QueueError::Refused(refused) => Self::Conflict(refused.to_string()),
            QueueError::NoNeeded(_) | QueueError::Hopeless { .. } | QueueError::TooManyNeeds(_) => {
                Self::invalid("needs", error)
            }
            QueueError::Full => Self::Conflict(error.to_string()),
            QueueError::Database(_) => internal(error),
        }
    }
}

impl From<DeleteError> for ApiError {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::Needed(need) => Self::Conflict(need),
            DeleteError::Files(error) => error.into(),
            DeleteError::Queue(error) => error.into(),
            DeleteError::Output { .. } => {
                crate::console::say(error);
                Self::Internal
            }
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Field { param, message } => Self::Invalid { message, param: Some(param) },
            SubmitError::NoModel(name) => Self::not_found("model", name),
            SubmitError::NotDeclared(message) => Self::Invalid { message, param: Some("job".to_owned()) },
            SubmitError::Clock => Self::NotReady(error.to_string()),
            SubmitError::Image(error) => error.into(),
            SubmitError::Impossible(_) => Self::Invalid { message: error.to_string(), param: None },
            SubmitError::Files(error) => error.into(),
            SubmitError::Queue(error) => error.into(),
        }
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        Self::Invalid { message: error.to_string(), param: None }
    }
}
