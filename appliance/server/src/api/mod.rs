//! The API: OpenAI's paths, one file a resource, and the document that describes them.

mod body;
mod chat;
mod completions;
mod error;
mod generation;
mod logprobs;
mod messages;
mod preparing;
mod stream;
mod texts;
mod tools;

pub use body::Bodies;
pub use error::ApiError;
pub use preparing::Preparing;

use crate::{
    catalogue::Catalogue,
    metrics::{Answered, Meters},
};
use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The OpenAPI document.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// What the paths share.
#[derive(Debug, Clone)]
pub struct Served {
    /// The models.
    pub catalogue: Arc<Catalogue>,
    /// What is measured.
    pub meters: Arc<Meters>,
    /// The room for bodies of requests.
    pub bodies: Bodies,
    /// The queue before templates, tokens and grammars.
    pub preparing: Arc<Preparing>,
}

/// All paths.
pub fn router(served: Served) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(texts::embed))
        .route("/v1/classify", post(texts::classify))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(document))
        .fallback(|| async { ApiError::NoSuchPath })
        .method_not_allowed_fallback(|| async { ApiError::WrongMethod })
        .layer(from_fn_with_state(served.clone(), count))
        .with_state(served)
}

async fn count(State(served): State<Served>, request: Request, next: Next) -> Response {
    // Names that clients make up must not fill the memory.
    let known = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify", "/v1/models"];
    let asked = request.uri().path();
    let path = known.into_iter().find(|path| asked == *path).unwrap_or("other");
    let response = next.run(request).await;
    served.meters.requests.get_or_create(&Answered { path, status: response.status().as_u16() }).inc();
    response
}

async fn models(State(served): State<Served>) -> Json<Value> {
    Json(json!({"object": "list", "data": served.catalogue.list()}))
}

async fn model(
    State(served): State<Served>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::Invalid { message: error.body_text(), param: Some("model") })?;
    served.catalogue.describe(&name).map(Json).ok_or(ApiError::NoSuchModel(name))
}

async fn health(State(served): State<Served>) -> Response {
    health_of(served.catalogue.is_alive())
}

fn health_of(alive: bool) -> Response {
    if alive {
        Json(json!({"status": "ok"})).into_response()
    } else {
        let error = ApiError::Internal("an engine has stopped; start the server again".to_owned());
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": error.body()}))).into_response()
    }
}

async fn metrics(State(served): State<Served>) -> Result<Response, ApiError> {
    let text = served.meters.text().map_err(|error| ApiError::Internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_bad_where_an_engine_has_ended() {
        assert_eq!(health_of(true).status(), StatusCode::OK);
        assert_eq!(health_of(false).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
