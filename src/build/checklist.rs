//! The checklist, worked out on what was built.

use super::{BuildError, Request};
use crate::{
    check::{Report, check, gather},
    plan::Plan,
    progress::{Stage, Work},
};

/// Works the checklist out. A line that fails does not stop the build: the release says so, and so does `gapimage check`.
///
/// # Errors
/// [`BuildError::Checklist`].
pub fn work_out(request: &Request<'_>, plan: &Plan<'_>) -> Result<Report, BuildError> {
    (request.begin)(&Work::whole(Stage::Check, "working the checklist out"));
    Ok(check(&gather::of_plan(plan, request.store)?))
}
