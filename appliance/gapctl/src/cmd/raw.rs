//! `gapctl request`: all of the API.

use super::{Failure, Outcome, Session};
use crate::client::{Body, Method, Request};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::{
    io::{self, Read},
    time::Duration,
};

/// Longest body that is read from standard input, in bytes.
const MAX_BODY: u64 = 64 << 20;
/// Longest silence.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Looks
    #[value(alias = "GET")]
    Get,
    /// Creates or changes
    #[value(alias = "POST")]
    Post,
    /// Deletes
    #[value(alias = "DELETE")]
    Delete,
}

/// A request.
#[derive(Debug, Args)]
pub struct Raw {
    /// GET, POST or DELETE
    #[arg(ignore_case = true)]
    method: Verb,
    /// The path, with its query: /v1/models
    path: String,
    /// JSON to send; `-` reads it from standard input
    #[arg(long)]
    data: Option<String>,
}

pub fn request(session: &Session, raw: Raw) -> Outcome {
    let method = match raw.method {
        Verb::Get => Method::Get,
        Verb::Post => Method::Post,
        Verb::Delete => Method::Delete,
    };
    if !raw.path.starts_with('/') {
        return Err(Failure::usage(format!("`{}` is no path", raw.path), "it begins with /: /v1/system"));
    }
    let body = match raw.data {
        None => Body::Nothing,
        Some(data) => Body::Json(json(data)?),
    };
    let answer = session.client.ask(Request::new(method, raw.path, body).patience(PATIENCE))?;
    session.print(&answer)
}

fn json(data: String) -> Result<Vec<u8>, Failure> {
    let mut bytes = data.into_bytes();
    if bytes == b"-" {
        bytes.clear();
        let read = io::stdin().take(MAX_BODY).read_to_end(&mut bytes);
        read.map_err(|error| Failure::could_not(format!("reading standard input: {error}"), "pipe JSON into it"))?;
    }
    let checked: Result<Value, _> = serde_json::from_slice(&bytes);
    checked.map_err(|error| Failure::usage(format!("the data is no JSON: {error}"), "quote it for the shell"))?;
    Ok(bytes)
}
