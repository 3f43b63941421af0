//! Errors of the API, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;

/// Why a request is not answered as it was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No token came with the request.
    #[error("this needs a token: send the header `Authorization: Bearer TOKEN`")]
    NoToken,
    /// The token is not the right one.
    #[error("the token is wrong")]
    WrongToken,
    /// Too many wrong tokens came from this address.
    #[error("too many wrong tokens came from this address; wait before trying again")]
    LockedOut(Duration),
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
    param: Option<&'static str>,
    code: &'static str,
}

impl ApiError {
    const fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::LockedOut(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// OpenAI's error `type` and `code`.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NoToken => ("authentication_error", "missing_token"),
            Self::WrongToken => ("authentication_error", "invalid_token"),
            Self::LockedOut(_) => ("rate_limit_error", "rate_limit_exceeded"),
            Self::NoSuchPath => ("invalid_request_error", "unknown_path"),
            Self::WrongMethod => ("invalid_request_error", "method_not_allowed"),
            Self::BodyTooLong => ("invalid_request_error", "request_too_large"),
            Self::BodyTooSlow => ("invalid_request_error", "request_timeout"),
            Self::Internal => ("server_error", "internal_error"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (kind, code) = self.names();
        let body = Body { message: self.to_string(), r#type: kind, param: None, code };
        let mut response = (self.status(), Json(Envelope { error: body })).into_response();
        let headers = response.headers_mut();
        match self {
            Self::NoToken | Self::WrongToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::LockedOut(wait) => {
                // Rounded up: who comes back at that second is let in.
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
            }
            // The rest of a body that was not read would be taken for the next request.
            Self::BodyTooLong | Self::BodyTooSlow => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
