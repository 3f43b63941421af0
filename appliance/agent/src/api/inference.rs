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
use serde_json::value::RawValue;
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

/// The one field of a request that decides where it goes, as it is written there.
#[derive(Deserialize)]
struct Addressed<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
}

pub(super) async fn forward(State(api): State<Arc<Api>>, uri: Uri, body: Bytes) -> Result<Response, ApiError> {
    let work = api.work()?;
    // A body may be long, and is read through for its model.
    let (body, job, socket) = blocking(move || {
        let (body, model) = addressed(body, |model| work.resolve(model))?;
        let (job, socket) = server_of(&work, &model)?;
        Ok((body, job, socket))
    })
    .await?;
    hand_on(&socket, uri.path(), body).await.map_err(|reason| {
        crate::console::say(format_args!("the server {job} did not answer: {reason}"));
        ApiError::NotReady("the server of this model did not answer: try again soon".to_owned())
    })
}

/// The model that a request is for, and the request with the model's own name in it: a server knows no other. The rest of it
/// is passed on as it came, and takes no memory besides.
fn addressed(body: Bytes, resolve: impl Fn(&str) -> String) -> Result<(Bytes, String), ApiError> {
    let invalid = |error: serde_json::Error| ApiError::Invalid {
        message: format!("the body: {error}"),
        param: Some("model".to_owned()),
    };
    let Addressed { model: written } = serde_json::from_slice(&body).map_err(invalid)?;
    let asked: String = serde_json::from_str(written.get()).map_err(invalid)?;
    let model = resolve(&asked);
    if model == asked {
        return Ok((body, model));
    }
    let name = serde_json::to_vec(&model).map_err(invalid)?;
    // What was borrowed lies in the body.
    let start = written.get().as_ptr().addr().checked_sub(body.as_ptr().addr());
    let around = start.and_then(|start| {
        let (before, rest) = body.split_at_checked(start)?;
        Some((before, rest.get(written.get().len()..)?))
    });
    let (before, after) = around.ok_or(ApiError::Internal)?;
    Ok((Bytes::from([before, &name, after].concat()), model))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn readdressed(body: &str) -> Result<(String, String), ApiError> {
        let resolve = |model: &str| if model == "support" { "ft:\"x\"".to_owned() } else { model.to_owned() };
        let (body, model) = addressed(Bytes::copy_from_slice(body.as_bytes()), resolve)?;
        Ok((String::from_utf8(body.to_vec()).unwrap(), model))
    }

    #[test]
    fn only_the_models_name_is_exchanged_in_a_request() {
        for (body, expected) in [
            (r#"{"model":"support"}"#, r#"{"model":"ft:\"x\""}"#),
            (
                r#" {"x":[0, 1e3, {"model":"support"}], "model" : "sup\u0070ort" ,"ä":"b"} "#,
                r#" {"x":[0, 1e3, {"model":"support"}], "model" : "ft:\"x\"" ,"ä":"b"} "#,
            ),
            (r#"{"mod\u0065l":"support","seed":7}"#, r#"{"mod\u0065l":"ft:\"x\"","seed":7}"#),
        ] {
            assert_eq!(readdressed(body).unwrap(), (expected.to_owned(), "ft:\"x\"".to_owned()));
        }
        let same = r#"{"model": "tiny", "x": 1}"#;
        assert_eq!(readdressed(same).unwrap(), (same.to_owned(), "tiny".to_owned()));
        for bad in ["", "{}", r#"{"model":7}"#, r#"{"model":"support","model":"tiny"}"#, r#"{"model":"support""#] {
            assert!(matches!(readdressed(bad), Err(ApiError::Invalid { .. })), "{bad}");
        }
    }
}
