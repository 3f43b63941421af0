//! Answers as server-sent events.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use std::convert::Infallible;

/// A response of pieces, ended by OpenAI's `[DONE]`. When the client goes away the stream is dropped, and with it what feeds it.
pub fn respond(pieces: impl Stream<Item = String> + Send + 'static) -> Response {
    let done = futures::stream::once(async { "data: [DONE]\n\n".to_owned() });
    let body = Body::from_stream(pieces.chain(done).map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}
