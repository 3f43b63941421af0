//! Requests to models: handed on to the job that serves the model, over its Unix socket, and its answer handed back as it
//! comes.

use super::{Api, ApiError, blocking};
use crate::work::{Work, left::Socket};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use gap_jobs::{JobId, Kind, State as JobState, queue::Filter};
use http_body_util::Full;
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    path::PathBuf,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// How long a server may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most servers of one model that are looked at.
const MAX_SERVERS: usize = 16;
/// What of a server's answer is handed back besides its status and body.
const HANDED_BACK: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// The one field of a request that decides where it goes.
#[derive(Deserialize)]
struct Addressed {
    model: String,
}

pub(super) async fn forward(State(api): State<Arc<Api>>, uri: Uri, body: Bytes) -> Result<Response, ApiError> {
    let addressed: Addressed = serde_json::from_slice(&body).map_err(|error| ApiError::Invalid {
        message: format!("the body: {error}"),
        param: Some("model".to_owned()),
    })?;
    let work = api.work()?;
    let model = work.resolve(&addressed.model);
    // A server knows a model by its own name only.
    let body = if model == addressed.model { body } else { readdressed(&body, &model)? };
    let (job, socket) = blocking(move || server_of(&work, &model)).await?;
    hand_on(&socket, uri.path(), body).await.map_err(|reason| {
        crate::console::say(format_args!("the server {job} did not answer: {reason}"));
        ApiError::NotReady("the server of this model did not answer: try again soon".to_owned())
    })
}

/// The same request to another model.
fn readdressed(body: &[u8], model: &str) -> Result<Bytes, ApiError> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).map_err(|_| ApiError::Internal)?;
    request.insert("model".to_owned(), model.into());
    serde_json::to_vec(&request).map(Bytes::from).map_err(|_| ApiError::Internal)
}

/// The job that serves this model and answers.
fn server_of(work: &Work, model: &str) -> Result<(JobId, PathBuf), ApiError> {
    let servers = |states: Vec<JobState>| {
        let name = Some(model.to_owned());
        work.queue().jobs(&Filter { kinds: vec![Kind::Serve], states, name, limit: MAX_SERVERS, after: None })
    };
    let running = servers(vec![JobState::Running])?;
    let ready = running.iter().find_map(|job| Some((job.id.clone(), work.serving.socket(&job.id)?)));
    if let Some(ready) = ready {
        return Ok(ready);
    }
    if !running.is_empty() || !servers(vec![JobState::Queued])?.is_empty() {
        return Err(ApiError::NotReady(format!("the model `{model}` is being loaded: try again soon")));
    }
    let is_known = work.catalog.declared.model(model).is_some() || work.trained(model)?.is_some();
    if is_known {
        let message = format!("the model `{model}` is not served: create a job of kind `serve` for it");
        return Err(ApiError::NotReady(message));
    }
    Err(ApiError::not_found("model", model))
}

/// Sends the request to the server and returns its answer, whose body goes on coming.
async fn hand_on(socket: &std::path::Path, path: &str, body: Bytes) -> Result<Response, String> {
    let socket = Socket::at(socket).map_err(|error| error.to_string())?;
    let stream = UnixStream::connect(socket.path()).await.map_err(|error| error.to_string())?;
    let (mut sender, mut connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let (answer, connection) = timeout(PATIENCE, async {
        let mut asked = pin!(sender.send_request(request));
        tokio::select! {
            biased;
            answer = asked.as_mut() => (answer, Some(connection)),
            // A short answer is here when its connection ends; otherwise this is why there is none.
            _ = &mut connection => (asked.await, None),
        }
    })
    .await
    .map_err(|_| "it took too long".to_owned())?;
    let (parts, body) = answer.map_err(|error| error.to_string())?.into_parts();
    let mut response = (parts.status, Body::new(Answer { body, connection })).into_response();
    copy(&parts.headers, response.headers_mut());
    Ok(response)
}

/// The body of a server's answer, with the connection that it comes on. Whoever reads it moves the connection on: with a
/// task of its own each token would take the way through two. When the client goes away both are dropped; the server sees
/// that and stops.
struct Answer {
    body: Incoming,
    connection: Option<Connection>,
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asking tells the connection that something is wanted; what it then brings is there to be taken.
        let first = Pin::new(&mut self.body).poll_frame(cx);
        let Some(connection) = self.connection.as_mut().filter(|_| first.is_pending()) else { return first };
        // An error of the connection is one of the body as well.
        if Pin::new(connection).poll(cx).is_ready() {
            self.connection = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    to.remove(header::CONTENT_TYPE);
    for name in HANDED_BACK {
        if let Some(value) = from.get(&name) {
            to.insert(name, HeaderValue::clone(value));
        }
    }
}
