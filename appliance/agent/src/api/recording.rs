//! What of requests is in the audit log.

use super::{Api, ApiError};
use crate::{
    access::{
        Caller,
        audit::{AuditError, Entry},
    },
    console,
};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gap_jobs::dispatcher::now;
use serde::Serialize;
use std::net::IpAddr;

/// An answer that shows what was made, with its name for the audit log.
pub(super) struct Made<T> {
    name: String,
    view: T,
}

/// What was made, on its way from the handler to the guard.
#[derive(Clone)]
struct Name(String);

impl<T> Made<T> {
    pub(super) fn new(name: impl ToString, view: T) -> Self {
        Self { name: name.to_string(), view }
    }
}

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.view).into_response();
        response.extensions_mut().insert(Name(self.name));
        response
    }
}

/// What a record of its own has to tell of how a change ended; none of one that was made, and made nothing.
pub(super) fn outcome(response: &Response) -> Option<String> {
    let status = response.status();
    if let Some(Name(name)) = response.extensions().get() {
        return Some(format!("made {name}"));
    }
    match status {
        // The connection of a terminal.
        StatusCode::SWITCHING_PROTOCOLS => None,
        _ if status.is_success() => None,
        _ if status.is_client_error() => Some(format!("refused {}", status.as_u16())),
        _ => Some(format!("failed {}", status.as_u16())),
    }
}

impl Api {
    /// Records what somebody asks for, before it is done.
    pub(super) async fn record(
        &self,
        caller: &Caller,
        from: IpAddr,
        what: &str,
        outcome: &str,
    ) -> Result<(), ApiError> {
        self.audit.keep(entry(caller, from, what, outcome)).await.map_err(|error| refused(&error))
    }

    /// The same, in the midst of what holds a thread already. Blocks.
    pub(super) fn record_here(&self, caller: &Caller, from: IpAddr, what: &str, outcome: &str) -> Result<(), ApiError> {
        self.audit.record(entry(caller, from, what, outcome)).map_err(|error| refused(&error))
    }
}

fn entry(caller: &Caller, from: IpAddr, what: &str, outcome: &str) -> Entry {
    Entry {
        at: now(),
        who: caller.name.clone(),
        role: caller.role.name().to_owned(),
        from: from.to_string(),
        what: what.to_owned(),
        outcome: outcome.to_owned(),
    }
}

/// What cannot be recorded is not done.
fn refused(error: &AuditError) -> ApiError {
    console::say(error);
    ApiError::NotReady(format!("{error}: nothing is changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_that_is_no_success_is_told_and_what_was_made() {
        let of = |status: u16| outcome(&StatusCode::from_u16(status).unwrap().into_response());
        assert_eq!([101, 200, 202].map(of), [None, None, None]);
        assert_eq!(of(409).as_deref(), Some("refused 409"));
        assert_eq!(
            [302, 500, 503, 507].map(of).map(Option::unwrap).join(" "),
            "failed 302 failed 500 failed 503 failed 507"
        );
        assert_eq!(outcome(&Made::new("file-1", ()).into_response()).as_deref(), Some("made file-1"));
    }
}
