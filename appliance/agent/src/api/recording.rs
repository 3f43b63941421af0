//! What of requests is in the audit log.

use super::{Api, ApiError};
use crate::{
    access::{
        Caller,
        audit::{AuditError, Entry},
    },
    console,
};
use gap_jobs::dispatcher::now;
use std::net::IpAddr;

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
