//! Bodies of requests: JSON of bounded length, in bounded time.

use super::error::ApiError;
use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::header,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// Longest body, in bytes.
const MAX_BODY: usize = 8 << 20;
/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A request whose fields are all known: one that is misspelt must not be passed over.
pub trait Fields: DeserializeOwned {
    /// Their names.
    const KNOWN: &'static [&'static [&'static str]];
}

/// A body that was JSON and is what it should be.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: Fields, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::NotJson);
        }
        let body =
            timeout(ARRIVAL, to_bytes(request.into_body(), MAX_BODY)).await.map_err(|_| ApiError::BodyTooSlow)?;
        let body = body.map_err(|error| {
            let too_long =
                std::error::Error::source(&error).is_some_and(|error| error.to_string().contains("length limit"));
            if too_long { ApiError::BodyTooLong(MAX_BODY) } else { ApiError::BodyTooSlow }
        })?;
        parse(&body).map(Self)
    }
}

fn parse<T: Fields>(body: &[u8]) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is no JSON object: {error}")))?;
    let known = |name: &String| T::KNOWN.iter().any(|names| names.contains(&name.as_str()));
    if let Some(name) = fields.keys().find(|name| !known(name)) {
        return Err(invalid(format!("{name:?} is none of the fields that this path takes; /openapi.json lists them")));
    }
    T::deserialize(Value::Object(fields)).map_err(|error| invalid(format!("the body is not valid: {error}")))
}
