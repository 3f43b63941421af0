//! `/v1/appliance/debug` and the terminal of a job: the connection of the request itself becomes the terminal (HTTP/1.1,
//! RFC 9110, section 7.8), one stream both ways.

use super::{
    Api, ApiError, Given,
    answers::job_id,
    blocking,
    jobs::{self, JobView},
    recording::Made,
};
use crate::{
    access::Caller,
    work::{submit::CreateDebug, terminals},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gap_jobs::JobId;
use hyper_util::rt::TokioIo;
use std::sync::Arc;

/// What the connection becomes, as it stands in `Upgrade`.
pub const PROTOCOL: &str = "gap-terminal";

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(super::Peer(from)): Extension<super::Peer>,
    Given(request): Given<CreateDebug>,
) -> Result<Made<JobView>, ApiError> {
    let work = api.work()?;
    blocking(move || {
        let job = work.debug(&request)?;
        // The record of the request says that one was asked for; this one says which, before anybody can work in it.
        let what = format!("terminal {} in the image {} for {}", job.id, request.image, work.limit_of(&job));
        api.record_here(&caller, from, &what, "opened").inspect_err(|_| drop(work.dispatcher.cancel(&job.id)))?;
        Ok(jobs::made(job, &work))
    })
    .await
}

pub(super) async fn attach(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(super::Peer(from)): Extension<super::Peer>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let work = api.work()?;
    let job = job_id(id)?;
    let wants = request.headers().get(header::UPGRADE).is_some_and(|value| value == PROTOCOL);
    if !wants {
        return Err(ApiError::invalid(
            "Upgrade",
            format!("the connection becomes a terminal: ask with `Upgrade: {PROTOCOL}`"),
        ));
    }
    let (known, look) = (Arc::clone(&work), job.clone());
    blocking(move || Ok(known.queue().job(&look)?)).await?;
    let terminal = work.terminals.take(&job).ok_or_else(|| {
        ApiError::Conflict(format!(
            "the job {job} has no terminal that waits for somebody: it has not started, or somebody has it"
        ))
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let outcome = match upgrade.await {
            Ok(connection) => match terminals::connect(TokioIo::new(connection), terminal).await {
                (traffic, Ok(())) => format!("closed: {traffic}"),
                (traffic, Err(error)) => format!("broken off: {error}; {traffic}"),
            },
            Err(error) => format!("broken off: {error}"),
        };
        end(&api, &caller, from, job, outcome).await;
    });
    let switching = StatusCode::SWITCHING_PROTOCOLS;
    let mut response = (switching, Body::empty()).into_response();
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(response)
}

/// Nobody works in it any more, so nothing of it goes on running.
async fn end(api: &Arc<Api>, caller: &Caller, from: std::net::IpAddr, job: JobId, outcome: String) {
    let what = format!("terminal {job}");
    if let Ok(work) = api.work() {
        let ended = blocking(move || {
            // It has ended already where its program did.
            drop(work.dispatcher.cancel(&job));
            Ok(())
        });
        drop(ended.await);
    }
    // The console tells what is not recorded.
    drop(api.record(caller, from, &what, &outcome).await);
}
