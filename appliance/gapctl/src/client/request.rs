//! One request and its answer.

use super::ClientError;
use http_body_util::Full;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Write, time::Duration};

/// What need not be escaped in a part of a path.
const PART: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Longest silence when nothing else is said; sending is none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the parts of a form, with a number behind it where the file holds it.
const BOUNDARY: &str = "gapctl-7f1c0d5e9ab84c36";

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looked at.
    Get,
    /// Created or changed.
    Post,
    /// Deleted.
    Delete,
}

impl Method {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// What a request carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing.
    Nothing,
    /// JSON.
    Json(Vec<u8>),
    /// A form.
    Form {
        /// Its media type, which names its boundary.
        kind: String,
        /// As it is sent.
        bytes: Vec<u8>,
    },
}

impl Body {
    /// A form (RFC 7578) with one file in this field.
    pub fn form(field: &str, file: &[u8]) -> Self {
        let boundary = boundary(file);
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{field}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let bytes = [head.as_bytes(), file, tail.as_bytes()].concat();
        Self::Form { kind: format!("multipart/form-data; boundary={boundary}"), bytes }
    }

    pub(super) fn kind(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Json(_) => Some("application/json"),
            Self::Form { kind, .. } => Some(kind),
        }
    }

    pub(super) fn into_bytes(self) -> Full<Bytes> {
        match self {
            Self::Nothing => Full::default(),
            Self::Json(bytes) | Self::Form { bytes, .. } => bytes.into(),
        }
    }
}

/// A text that the file does not hold.
fn boundary(file: &[u8]) -> String {
    let mut boundary = BOUNDARY.to_owned();
    let mut number = 0_u64;
    while memchr::memmem::find(file, boundary.as_bytes()).is_some() {
        number += 1;
        boundary = format!("{BOUNDARY}-{number}");
    }
    boundary
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Body,
    pub(super) patience: Duration,
}

impl Request {
    /// For `path` as it is, with a query or without.
    pub const fn new(method: Method, path: String, body: Body) -> Self {
        Self { method, path, body, patience: PATIENCE }
    }

    /// Looks at the resource whose path has these parts, each of them escaped.
    pub fn get(parts: &[&str]) -> Self {
        Self::new(Method::Get, path(parts), Body::Nothing)
    }

    /// Deletes the resource whose path has these parts.
    pub fn delete(parts: &[&str]) -> Self {
        Self::new(Method::Delete, path(parts), Body::Nothing)
    }

    /// Sends nothing to the resource whose path has these parts: it is the path that says what to do.
    pub fn post(parts: &[&str]) -> Self {
        Self::new(Method::Post, path(parts), Body::Nothing)
    }

    /// Sends JSON to the resource whose path has these parts.
    ///
    /// # Errors
    /// [`ClientError`] when it is not to be written as JSON.
    pub fn post_json(parts: &[&str], body: &impl Serialize) -> Result<Self, ClientError> {
        Ok(Self::new(Method::Post, path(parts), Body::Json(serde_json::to_vec(body)?)))
    }

    /// With these pairs of the query that have a value.
    #[must_use]
    pub fn query(mut self, pairs: &[(&str, Option<String>)]) -> Self {
        let mut mark = '?';
        for (name, value) in pairs {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(self.path, "{mark}{name}={}", utf8_percent_encode(value, &PART));
                mark = '&';
            }
        }
        self
    }

    /// With this body.
    #[must_use]
    pub fn with(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// With another longest silence.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

fn path(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        let _ = write!(path, "/{}", utf8_percent_encode(part, &PART));
    }
    path
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer(pub(super) Vec<u8>);

impl Answer {
    /// What it means.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when it is something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.0)?)
    }

    /// As it came.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_part_of_a_path() {
        let request = Request::get(&["v1", "models", "a/../b?c#d e"]).query(&[
            ("limit", Some("5".to_owned())),
            ("after", None),
            ("search", Some("a&b".to_owned())),
        ]);
        assert_eq!(request.path, "/v1/models/a%2F..%2Fb%3Fc%23d%20e?limit=5&search=a%26b");
    }

    #[test]
    fn a_file_that_holds_the_boundary_gets_another() {
        let file = format!("x\r\n--{BOUNDARY}--\r\ny {BOUNDARY}-1");
        let Body::Form { kind, bytes } = Body::form("data", file.as_bytes()) else { panic!() };
        // The one with 1 is there as well.
        assert!(kind.ends_with("-2"), "{kind}");
        assert!(String::from_utf8(bytes).unwrap().ends_with(&format!("\r\n--{BOUNDARY}-2--\r\n")));
    }
}
