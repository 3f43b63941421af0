//! What a job prints and leaves behind: its log, its metrics, its files, while it runs and after.

use super::{
    Api, ApiError, Asked,
    answers::{self, job_id, limit},
    blocking,
    files::Deleted,
};
use crate::work::Work;
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use gap_contract::Output;
use gap_jobs::{JobId, State as JobState, log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Component, Path as FilePath, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// Most files that are listed.
const MAX_FILES: usize = 10_000;
/// Longest text to search for, in characters.
const MAX_SEARCH: usize = 256;
/// Bytes of a log that are shown when no position is said.
const TAIL: u64 = 64 << 10;
/// How often a log that is followed is looked at again when nothing is told of any job.
const FOLLOW: Duration = Duration::from_millis(500);
/// Shortest time between two looks at it, however much jobs print.
const REST: Duration = Duration::from_millis(20);
/// Most lines of a log at a time.
const LINES: usize = 1000;

/// Which part of a log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Position to read from; the end of the log when absent.
    after: Option<u64>,
    /// Most lines, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// Only lines that hold this text.
    #[schemars(length(max = 256))]
    search: Option<String>,
    /// Goes on as lines come, until the job has ended or is paused, or `limit` lines came: one JSON object a line.
    #[serde(default)]
    follow: bool,
}

/// A line of a log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LineView {
    /// When it was printed, in milliseconds since 1970.
    at: i64,
    /// `stdout` or `stderr`.
    stream: &'static str,
    text: String,
}

/// Lines of a log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogView {
    lines: Vec<LineView>,
    /// Where to go on.
    next: u64,
}

impl From<log::Line> for LineView {
    fn from(line: log::Line) -> Self {
        let stream = match line.stream {
            log::Stream::Out => "stdout",
            log::Stream::Err => "stderr",
        };
        Self { at: line.at, stream, text: line.text }
    }
}

pub(super) async fn log(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, ApiError> {
    let work = api.work()?;
    if query.search.as_ref().is_some_and(|search| search.chars().count() > MAX_SEARCH) {
        return Err(ApiError::invalid("search", format!("a text to search for has at most {MAX_SEARCH} characters")));
    }
    let most = limit(query.limit.or(Some(LINES)))?;
    let here = Arc::clone(&work);
    let (job, from) = blocking(move || {
        let job = here.queue().job(&job_id(id)?)?.id;
        let tail = || log::tail(&here.storage.log(job.as_str()), TAIL).map_err(|_| ApiError::Internal);
        let from = query.after.map_or_else(tail, Ok)?;
        Ok((job, from))
    })
    .await?;
    if query.follow {
        return Ok(follow(work, job, from, query.limit, query.search));
    }
    let page = read(work, job, from, most, query.search).await?;
    let view = LogView { lines: page.lines.into_iter().map(LineView::from).collect(), next: page.next };
    Ok(Json(view).into_response())
}

async fn read(
    work: Arc<Work>,
    job: JobId,
    from: u64,
    most: usize,
    search: Option<String>,
) -> Result<log::Page, ApiError> {
    blocking(move || {
        let page = log::read(&work.storage.log(job.as_str()), from, most, search.as_deref());
        page.map_err(|_| ApiError::Internal)
    })
    .await
}

/// Where somebody is who follows a log.
struct Followed {
    from: u64,
    /// How many lines may still come.
    left: usize,
    /// When it was last looked at.
    looked: Option<Instant>,
}

/// Lines as they come, at most `most` where that is said, until the job neither runs nor waits to.
fn follow(work: Arc<Work>, job: JobId, from: u64, most: Option<usize>, search: Option<String>) -> Response {
    let begin = Followed { from, left: most.unwrap_or(usize::MAX), looked: None };
    let lines = stream::unfold(begin, move |mut at| {
        let (work, job, search) = (Arc::clone(&work), job.clone(), search.clone());
        async move {
            while at.left > 0 {
                if let Some(looked) = at.looked {
                    sleep_until(looked + REST).await;
                }
                at.looked = Some(Instant::now());
                // Both before the log is read, so that nothing is missed between the two.
                let mut stirred = pin!(work.stirred.notified());
                stirred.as_mut().enable();
                let has_ended = !goes_on(Arc::clone(&work), job.clone()).await;
                let most = at.left.min(LINES);
                let page = read(Arc::clone(&work), job.clone(), at.from, most, search.clone()).await.ok()?;
                at.from = page.next;
                if !page.lines.is_empty() {
                    at.left = at.left.saturating_sub(page.lines.len());
                    let text =
                        |line: log::Line| serde_json::to_string(&LineView::from(line)).unwrap_or_default() + "\n";
                    let text: String = page.lines.into_iter().map(text).collect();
                    return Some((Ok::<_, std::convert::Infallible>(text), at));
                }
                if has_ended {
                    return None;
                }
                // Without a word it is looked all the same: a job that waits may be cancelled.
                drop(timeout(FOLLOW, stirred).await);
            }
            None
        }
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response
}

/// Whether a job runs, or waits to.
async fn goes_on(work: Arc<Work>, job: JobId) -> bool {
    let state = blocking(move || Ok(work.queue().job(&job)?.state)).await;
    state.is_ok_and(|state| state == JobState::Queued || state.holds_place())
}

pub(super) async fn metrics(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let work = api.work()?;
    let path = blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        Ok(Output::new(work.storage.output(job.id.as_str())).metrics())
    })
    .await?;
    answers::file(&path, "application/jsonl", "metrics").await
}

/// A file that a job left behind.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutputView {
    /// Its path in the job's output directory.
    path: String,
    bytes: u64,
}

/// The files that a job left behind.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// `list`.
    object: &'static str,
    data: Vec<OutputView>,
    /// Whether there are more than are listed.
    has_more: bool,
}

pub(super) async fn list(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Outputs>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        let (data, has_more) = files_of(&work.storage.output(job.id.as_str()));
        Ok(Json(Outputs { object: "list", data, has_more }))
    })
    .await
}

/// Makes room: what a job left behind is deleted, a model that it made included. The job itself stays in the list.
pub(super) async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        if !job.state.is_final() {
            let state = job.state.name();
            return Err(ApiError::Conflict(format!("the job {} is {state}: only what has ended is deleted", job.id)));
        }
        work.storage.delete_output(job.id.as_str()).map_err(|error| {
            crate::console::say(format_args!("deleting the output of {}: {error}", job.id));
            ApiError::Internal
        })?;
        Ok(Json(Deleted::new(job.id.to_string(), "appliance.job.outputs")))
    })
    .await
}

/// Regular files below a directory, sorted; links are neither listed nor followed.
fn files_of(root: &FilePath) -> (Vec<OutputView>, bool) {
    let (mut left, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.is_file()
                && let Ok(path) = entry.path().strip_prefix(root)
                && let Some(path) = path.to_str()
            {
                files.push(OutputView { path: path.to_owned(), bytes: metadata.len() });
            }
            if files.len() > MAX_FILES {
                files.truncate(MAX_FILES);
                return (files, true);
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    (files, false)
}

pub(super) async fn download(
    State(api): State<Arc<Api>>,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let work = api.work()?;
    let missing = ApiError::not_found("output", path.clone());
    let file = blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        Ok(confined(&work.storage.output(job.id.as_str()), &path))
    })
    .await?;
    answers::file(&file.ok_or(missing)?, "application/octet-stream", "output").await
}

/// A path below `root` on which there is no symbolic link: a job may have put one anywhere.
fn confined(root: &FilePath, path: &str) -> Option<PathBuf> {
    let mut place = root.to_owned();
    for component in FilePath::new(path).components() {
        let Component::Normal(name) = component else { return None };
        place.push(name);
        if fs::symlink_metadata(&place).ok()?.is_symlink() {
            return None;
        }
    }
    (place != root).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_output_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("output");
        fs::create_dir_all(root.join("adapter")).unwrap();
        fs::write(root.join("adapter/x"), "x").unwrap();
        fs::write(directory.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(directory.path(), root.join("out")).unwrap();
        assert_eq!(confined(&root, "adapter/x"), Some(root.join("adapter/x")));
        for bad in ["../secret", "/etc/passwd", "out/secret", "adapter/../../secret", "", "none"] {
            assert_eq!(confined(&root, bad), None, "{bad}");
        }
        let (files, has_more) = files_of(&root);
        assert_eq!((files.len(), files[0].path.as_str(), has_more), (1, "adapter/x", false));
    }
}
