//! Errors of the API, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use crate::{encoders::EncodeError, engine::Refused};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

/// Why a request is not answered as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field of the body is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong and what to do.
        message: String,
        /// Which field.
        param: Option<&'static str>,
    },
    /// The prompt and the answer that is wanted are longer than the model's context.
    #[error("the prompt has {prompt} tokens and {wanted} are wanted; the model has room for {most} in all")]
    TooLong {
        /// Which field.
        param: &'static str,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that are wanted.
        wanted: usize,
        /// Most tokens.
        most: usize,
    },
    /// A prompt is so long that it is not cut into tokens at all.
    #[error("the prompt has {bytes} bytes; the model has room for {tokens} tokens, which hold {most} bytes at most")]
    TooLongUnread {
        /// Which field.
        param: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Most tokens.
        tokens: usize,
        /// Most bytes of so many tokens.
        most: usize,
    },
    /// More answers are wanted than are ever taken at once.
    #[error("{0}; ask for fewer with `n`, or in several requests")]
    NeverFits(String),
    /// A text to encode is longer than the model's context.
    #[error("{0}")]
    InputTooLong(String),
    /// A field wants what other models have and this one has not.
    #[error("{message}")]
    NotOfModel {
        /// OpenAI's `code`.
        code: &'static str,
        /// What is wanted, and what there is.
        message: String,
        /// Which field.
        param: &'static str,
    },
    /// There is no such model.
    #[error("there is no model {0:?}; GET /v1/models lists them")]
    NoSuchModel(String),
    /// The model is there, and for something else.
    #[error("{0}; GET /v1/models says what each model is for")]
    OtherUse(String),
    /// The path is none of the API's.
    #[error("there is no such path; /openapi.json lists them all")]
    NoSuchPath,
    /// The path does not take this method.
    #[error("this path does not take that method; /openapi.json lists what it takes")]
    WrongMethod,
    /// The body is something else than JSON.
    #[error("the body must be JSON: send the header `Content-Type: application/json`")]
    NotJson,
    /// The body is longer than is taken.
    #[error("the body of the request is longer than {0} bytes")]
    BodyTooLong(usize),
    /// The body did not arrive in time, or broke off.
    #[error("the body of the request did not arrive in time")]
    BodyTooSlow,
    /// Too many requests are taken already.
    #[error("the server has as many requests as it takes at once; try again after {retry_after} s")]
    Overloaded {
        /// Seconds after which a place is likely.
        retry_after: u64,
    },
    /// The bodies of other requests take all the memory that there is for them.
    #[error("the server has as many long requests as it takes at once; try again after {retry_after} s")]
    NoRoom {
        /// Seconds after which there is likely room.
        retry_after: u64,
    },
    /// Something here failed.
    #[error("{0}")]
    Internal(String),
}

#[derive(Serialize)]
struct Envelope {
    error: Value,
}

impl ApiError {
    /// For a field that is wrong.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param) }
    }

    /// For a token that the model has not.
    pub const fn no_token(param: &'static str, message: String) -> Self {
        Self::NotOfModel { code: "token_not_found", message, param }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. }
            | Self::TooLong { .. }
            | Self::TooLongUnread { .. }
            | Self::NeverFits(_)
            | Self::InputTooLong(_)
            | Self::NotOfModel { .. } => StatusCode::BAD_REQUEST,
            Self::NoSuchModel(_) | Self::OtherUse(_) | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded { .. } | Self::NoRoom { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// OpenAI's error `type`, `code` and `param`.
    const fn names(&self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Invalid { param, .. } => ("invalid_request_error", "invalid_value", *param),
            Self::TooLong { param, .. } | Self::TooLongUnread { param, .. } => {
                ("invalid_request_error", "context_length_exceeded", Some(*param))
            }
            Self::NeverFits(_) => ("invalid_request_error", "too_many_answers", Some("n")),
            Self::InputTooLong(_) => ("invalid_request_error", "context_length_exceeded", Some("input")),
            Self::NotOfModel { code, param, .. } => ("invalid_request_error", code, Some(*param)),
            Self::NoSuchModel(_) => ("invalid_request_error", "model_not_found", Some("model")),
            Self::OtherUse(_) => ("invalid_request_error", "model_not_supported", Some("model")),
            Self::NoSuchPath => ("invalid_request_error", "unknown_path", None),
            Self::WrongMethod => ("invalid_request_error", "method_not_allowed", None),
            Self::NotJson => ("invalid_request_error", "unsupported_media_type", None),
            Self::BodyTooLong(_) => ("invalid_request_error", "request_too_large", None),
            Self::BodyTooSlow => ("invalid_request_error", "request_timeout", None),
            Self::Overloaded { .. } | Self::NoRoom { .. } => ("rate_limit_error", "rate_limit_exceeded", None),
            Self::Internal(_) => ("server_error", "internal_error", None),
        }
    }

    /// The error as JSON.
    pub fn body(&self) -> Value {
        let (kind, code, param) = self.names();
        json!({"message": self.to_string(), "type": kind, "param": param, "code": code})
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Overloaded { retry_after } => Self::Overloaded { retry_after },
            Refused::NeverFits { .. } => Self::NeverFits(refused.to_string()),
            Refused::Stopped => Self::Internal(refused.to_string()),
        }
    }
}

impl From<EncodeError> for ApiError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            EncodeError::Failed(_) => Self::Internal(error.to_string()),
            EncodeError::TooLong { .. } | EncodeError::TooLongUnread { .. } => Self::InputTooLong(error.to_string()),
            EncodeError::NoToken { .. } => Self::no_token("input", error.to_string()),
            EncodeError::Empty(_) => Self::invalid("input", error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(Envelope { error: self.body() })).into_response();
        let headers = response.headers_mut();
        if let Self::Overloaded { retry_after } | Self::NoRoom { retry_after } = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        // The rest of a body that was not read would be taken for the next request.
        if matches!(self, Self::BodyTooLong(_) | Self::BodyTooSlow | Self::NotJson | Self::NoRoom { .. }) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_for_want_of_room_is_told_when_to_come_back() {
        for (error, closes) in [
            (ApiError::from(EncodeError::Overloaded { retry_after: 7 }), false),
            (ApiError::from(Refused::Overloaded { retry_after: 7 }), false),
            (ApiError::NoRoom { retry_after: 7 }, true),
        ] {
            assert_eq!(error.body()["type"], "rate_limit_error");
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[header::RETRY_AFTER], "7");
            assert_eq!(response.headers().contains_key(header::CONNECTION), closes);
        }
    }
}
