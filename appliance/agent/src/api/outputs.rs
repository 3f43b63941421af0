//! What a job prints and leaves behind: its log, its metrics, its files, while it runs and after.

use super::{
    Api, ApiError, Asked,
    answers::{self, job_id, limit},
    blocking,
    files::Deleted,
};
use crate::work::{Work, left::Left};
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
use rustix::fs::FileType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path as FilePath, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// Most files that are listed.
const MAX_FILES: usize = 10_000;
/// Most entries of directories that are looked at for that.
const MAX_SEEN: usize = 100_000;
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
    let notify = work.stirred.of(&job);
    let begin = Followed { from, left: most.unwrap_or(usize::MAX), looked: None };
    let lines = stream::unfold(begin, move |mut at| {
        let (work, job, search, notify) = (Arc::clone(&work), job.clone(), search.clone(), Arc::clone(&notify));
        async move {
            while at.left > 0 {
                if let Some(looked) = at.looked {
                    sleep_until(looked + REST).await;
                }
                at.looked = Some(Instant::now());
                // Both before the log is read, so that nothing is missed between the two.
                let mut stirred = pin!(notify.notified());
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
    let (root, id) = blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        Ok((work.storage.output(job.id.as_str()), job.id.to_string()))
    })
    .await?;
    let open = move || Left::open(&root)?.file(&Output::new("").metrics());
    answers::file(open, id, "application/jsonl", "metrics").await
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
        let job = job_id(id)?;
        work.delete_output(&job)?;
        Ok(Json(Deleted::new(job.to_string(), "appliance.job.outputs")))
    })
    .await
}

/// Regular files below a directory, sorted; links are neither listed nor followed.
fn files_of(root: &FilePath) -> (Vec<OutputView>, bool) {
    let Ok(tree) = Left::open(root) else { return (Vec::new(), false) };
    let (mut left, mut files, mut seen) = (vec![PathBuf::from(".")], Vec::new(), 0_usize);
    let mut has_more = false;
    while let Some(directory) = left.pop() {
        if seen >= MAX_SEEN || files.len() > MAX_FILES {
            has_more = true;
            break;
        }
        // What was exchanged since it was seen is passed over.
        let Ok(entries) = tree.entries(&directory, MAX_SEEN - seen) else { continue };
        seen += entries.len();
        for entry in entries {
            let path = directory.join(&entry.name);
            match entry.kind {
                FileType::Directory => left.push(path),
                FileType::RegularFile => files.extend(view(&tree, &path)),
                _ => {}
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    has_more |= files.len() > MAX_FILES;
    files.truncate(MAX_FILES);
    (files, has_more)
}

fn view(tree: &Left, path: &FilePath) -> Option<OutputView> {
    let bytes = tree.file(path).ok()?.metadata().ok()?.len();
    let path = path.strip_prefix(".").unwrap_or(path).to_str()?.to_owned();
    Some(OutputView { path, bytes })
}

pub(super) async fn download(
    State(api): State<Arc<Api>>,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let work = api.work()?;
    let wanted = path.clone();
    let output = blocking(move || {
        let job = work.queue().job(&job_id(id)?)?;
        Ok(work.storage.output(job.id.as_str()))
    });
    let output = output.await?;
    let open = move || Left::open(&output)?.file(wanted.as_ref());
    answers::file(open, path, "application/octet-stream", "output").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_are_neither_listed_nor_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("output");
        fs::create_dir_all(root.join("adapter")).unwrap();
        fs::write(root.join("adapter/x"), "x").unwrap();
        fs::write(root.join("z"), "zz").unwrap();
        std::os::unix::fs::symlink(directory.path(), root.join("out")).unwrap();
        let (files, has_more) = files_of(&root);
        let listed: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        assert_eq!((listed, has_more), (vec![("adapter/x", 1), ("z", 2)], false));
    }
}
