//! Errors of the API, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use crate::access::Role;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;

/// Why a request is not answered as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No token came with the request.
    #[error("this needs a token: send the header `Authorization: Bearer TOKEN`")]
    NoToken,
    /// The token is not the right one.
    #[error("the token is wrong")]
    WrongToken,
    /// The code is not the one that the console shows.
    #[error("the code is not the one that the console shows")]
    WrongCode,
    /// The token's role does not allow it.
    #[error("this needs the role {0}, and your token has a lower one")]
    Forbidden(Role),
    /// Too many wrong tokens or codes came from this address.
    #[error("too many wrong tokens or codes came from this address; wait before trying again")]
    LockedOut(Duration),
    /// Too many requests came with this token, or without one from this address.
    #[error("too many requests: wait before the next one")]
    TooMany(Duration),
    /// The path is none of the API's.
    #[error("there is no such path; /openapi.json lists them all")]
    NoSuchPath,
    /// The path does not take this method.
    #[error("this path does not take that method; /openapi.json lists what it takes")]
    WrongMethod,
    /// The body is longer than is taken.
    #[error("the body of the request is too long")]
    BodyTooLong,
    /// The body did not arrive in time, or broke off.
    #[error("the body of the request did not arrive in time")]
    BodyTooSlow,
    /// There is no memory for a body of this length now.
    #[error("too many long requests are here at once: try again soon")]
    Crowded,
    /// The request says something that cannot be.
    #[error("{message}")]
    Invalid {
        /// What, and what would be right.
        message: String,
        /// The field that it is about.
        param: Option<String>,
    },
    /// There is no such thing.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// A job, a file, …
        what: &'static str,
        /// Its name in the request.
        name: String,
    },
    /// Its state does not take that.
    #[error("{0}")]
    Conflict(String),
    /// What it needs is not there yet, or not at all.
    #[error("{0}")]
    NotReady(String),
    /// There is no room for it.
    #[error("{0}")]
    NoSpace(String),
    /// Something here failed.
    #[error("the appliance failed to answer; its console may say more")]
    Internal,
}

#[derive(Serialize)]
struct Envelope {
    error: Body,
}

#[derive(Serialize)]
struct Body {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl ApiError {
    /// A request that says something that cannot be, about one of its fields.
    pub fn invalid(param: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid { message: message.to_string(), param: Some(param.into()) }
    }

    /// There is no `what` of this name.
    pub fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::WrongCode | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::LockedOut(_) | Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSuchPath | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Crowded | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// OpenAI's error `type` and `code`.
    const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::NoToken => ("authentication_error", "missing_token"),
            Self::WrongToken => ("authentication_error", "invalid_token"),
            Self::WrongCode => ("permission_error", "invalid_code"),
            Self::Forbidden(_) => ("permission_error", "insufficient_role"),
            Self::LockedOut(_) => ("rate_limit_error", "locked_out"),
            Self::TooMany(_) => ("rate_limit_error", "rate_limit_exceeded"),
            Self::NoSuchPath => ("invalid_request_error", "unknown_path"),
            Self::WrongMethod => ("invalid_request_error", "method_not_allowed"),
            Self::BodyTooLong => ("invalid_request_error", "request_too_large"),
            Self::BodyTooSlow => ("invalid_request_error", "request_timeout"),
            Self::Invalid { .. } => ("invalid_request_error", "invalid_value"),
            Self::NotFound { what, .. } if matches!(what.as_bytes(), b"model") => {
                ("invalid_request_error", "model_not_found")
            }
            Self::NotFound { .. } => ("invalid_request_error", "not_found"),
            Self::Conflict(_) => ("invalid_request_error", "conflict"),
            Self::Crowded | Self::NotReady(_) => ("server_error", "not_ready"),
            Self::NoSpace(_) => ("server_error", "insufficient_storage"),
            Self::Internal => ("server_error", "internal_error"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (kind, code) = self.names();
        let param = if let Self::Invalid { param, .. } = &self { param.clone() } else { None };
        let body = Body { message: self.to_string(), r#type: kind, param, code };
        let mut response = (self.status(), Json(Envelope { error: body })).into_response();
        let headers = response.headers_mut();
        // The rest of a body that was not read would be taken for the next request.
        if matches!(self, Self::BodyTooLong | Self::BodyTooSlow | Self::NoSpace(_) | Self::Crowded) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::NoToken | Self::WrongToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::LockedOut(wait) | Self::TooMany(wait) => {
                // Rounded up: who comes back at that second is let in.
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
            }
            Self::Crowded | Self::NotReady(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}
