//! The API: what may be asked, and who may ask it. `openapi.json` beside this crate describes it for others.

pub mod error;
mod lockout;
mod system;

pub use error::ApiError;
pub use system::{Protection, System, SystemView};

use crate::token::TokenHash;
use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use gap_handover::control;
use lockout::Lockout;
use serde::Serialize;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// The description that `/openapi.json` serves (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");
/// Every path with its method, and whether it is open to those without a token.
pub const ROUTES: [(&str, &str, bool); 5] = [
    ("/healthz", "get", true),
    ("/openapi.json", "get", true),
    ("/v1/system", "get", false),
    ("/v1/system/poweroff", "post", false),
    ("/v1/system/reboot", "post", false),
];
/// Longest body of a request, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// The address that a request comes from; the server puts it into the request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Carries a request to PID 1.
pub type Ask = dyn Fn(control::Request) + Send + Sync;

/// All that the handlers need.
pub struct Api {
    system: Arc<System>,
    token: TokenHash,
    ask: Box<Ask>,
    lockout: Lockout,
    body_patience: Duration,
}

impl Api {
    /// An API that tells of `system`, is opened by `token`, and hands wishes for PID 1 to `ask`. A body that has not
    /// arrived after `body_patience` is given up.
    pub fn new(system: Arc<System>, token: TokenHash, ask: Box<Ask>, body_patience: Duration) -> Self {
        Self { system, token, ask, lockout: Lockout::default(), body_patience }
    }

    /// The routes. Requests must carry a [`Peer`].
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        let guarded = Router::new()
            .route("/v1/system", get(show_system))
            .route("/v1/system/poweroff", post(power_off))
            .route("/v1/system/reboot", post(reboot))
            .route_layer(middleware::from_fn_with_state(api.clone(), authenticate));
        Router::new()
            .route("/healthz", get(health))
            .route("/openapi.json", get(openapi))
            .merge(guarded)
            .method_not_allowed_fallback(async || ApiError::WrongMethod)
            .fallback(async || ApiError::NoSuchPath)
            .layer(middleware::from_fn_with_state(api.clone(), take_body))
            .layer(middleware::map_response(harden))
            .with_state(api)
    }
}

/// Reads the body, bounded in length and time, before anything looks at the request.
async fn take_body(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(api.body_patience, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => ApiError::BodyTooLong.into_response(),
        Err(_) => ApiError::BodyTooSlow.into_response(),
    }
}

/// Lets only those through who know the token.
async fn authenticate(
    State(api): State<Arc<Api>>,
    Extension(Peer(address)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let now = Instant::now();
    if let Some(wait) = api.lockout.wait(address, now) {
        return ApiError::LockedOut(wait).into_response();
    }
    let Some(given) = request.headers().get(header::AUTHORIZATION) else {
        return ApiError::NoToken.into_response();
    };
    if !bearer(given.as_bytes()).is_some_and(|token| api.token.opens(token)) {
        api.lockout.wrong(address, now);
        return ApiError::WrongToken.into_response();
    }
    next.run(request).await
}

/// The token of a `Bearer` header (RFC 6750, 2.1); the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Nothing of this may be kept by a cache or taken for something that it is not.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

async fn health(State(api): State<Arc<Api>>) -> Json<Health> {
    Json(Health { status: if api.system.is_degraded() { "degraded" } else { "ok" } })
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], Bytes::from_static(OPENAPI.as_bytes()))
}

async fn show_system(State(api): State<Arc<Api>>) -> Result<Json<SystemView>, ApiError> {
    let system = api.system.clone();
    // Files of the kernel are quick to read, but a driver may take its time for some.
    let view = tokio::task::spawn_blocking(move || system.view()).await;
    view.map(Json).map_err(|_| ApiError::Internal)
}

#[derive(Serialize)]
struct Accepted {
    status: &'static str,
}

async fn power_off(State(api): State<Arc<Api>>) -> impl IntoResponse {
    (api.ask)(control::Request::PowerOff);
    (StatusCode::ACCEPTED, Json(Accepted { status: "powering_off" }))
}

async fn reboot(State(api): State<Arc<Api>>) -> impl IntoResponse {
    (api.ask)(control::Request::Reboot);
    (StatusCode::ACCEPTED, Json(Accepted { status: "rebooting" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_header_is_read_as_the_rfc_says() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
        assert_eq!(bearer(b"Bearer "), Some(&b""[..]));
    }
}
