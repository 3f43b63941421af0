//! `/metrics`, for Prometheus.

use super::{Api, ApiError, blocking};
use crate::{
    metrics::{Host, Kind, MEDIA_TYPE, Page, last_xids, render_gpus},
    work::Work,
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use gap_gpu::health::Verdict;
use gap_jobs::State as JobState;
use std::sync::Arc;

pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let text = blocking(move || {
        let mut page = Page::default();
        appliance(&mut page, &api);
        gpus(&mut page, &api);
        // Before the data volume is there, nothing is known of jobs.
        if let Some(work) = api.work.get() {
            jobs(&mut page, &work)?;
        }
        Ok(page.into_text())
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

fn appliance(page: &mut Page, api: &Api) {
    let release = &api.system.report.release;
    let labels = vec![
        ("name", release.name.clone()),
        ("version", release.version.clone()),
        ("serial", release.serial.to_string()),
    ];
    page.family("gapimage_release_info", Kind::Gauge, "The release that runs; always 1.", [(labels, 1)]);
    let degraded = u8::from(api.system.is_degraded());
    page.one("gapimage_degraded", Kind::Gauge, "Whether damage was found in a layer.", degraded);
    page.one("gapimage_jobs_ready", Kind::Gauge, "Whether jobs are taken.", u8::from(api.work.get().is_some()));
}

/// Nothing where there is no GPU.
fn gpus(page: &mut Page, api: &Api) {
    let Some(provisioned) = api.system.gpus.get().filter(|provisioned| !provisioned.gpus.is_empty()) else { return };
    let verdicts = [(Verdict::Healthy, "healthy"), (Verdict::Degraded, "degraded"), (Verdict::Failed, "failed")];
    let counts = verdicts.map(|(verdict, name)| {
        let count = provisioned.gpus.iter().filter(|gpu| gpu.health.verdict == verdict).count();
        (vec![("health", name.to_owned())], count)
    });
    page.family("gapimage_gpus", Kind::Gauge, "GPUs by their health at the start.", counts);
    let samples = api.sampler.samples(&api.system.root);
    let host = Host {
        hostname: api.system.hostname.clone(),
        driver: provisioned.driver.clone(),
        xids: last_xids(&api.system.root),
    };
    render_gpus(page, &host, &samples);
}

fn jobs(page: &mut Page, work: &Work) -> Result<(), ApiError> {
    let counts = work.queue().counts()?;
    let count = |state: JobState| {
        let found = counts.iter().find(|(other, _)| *other == state).map_or(0, |(_, count)| *count);
        (vec![("state", state.name().to_owned())], found)
    };
    page.family("gapimage_jobs", Kind::Gauge, "Jobs by their state.", JobState::ALL.map(count));
    page.one("gapimage_servers_ready", Kind::Gauge, "Servers of models that answer.", work.serving.ready());
    page.one("gapimage_gpu_slots", Kind::Gauge, "GPUs and slices that jobs can be given.", work.machine.slots.len());
    page.one("gapimage_job_memory_bytes", Kind::Gauge, "Memory that there is for jobs.", work.machine.memory);
    let (free, total) = work.storage.space().map_err(|_| ApiError::Internal)?;
    page.one("gapimage_data_volume_free_bytes", Kind::Gauge, "Room on the data volume for jobs and files.", free);
    page.one("gapimage_data_volume_size_bytes", Kind::Gauge, "Size of the data volume.", total);
    Ok(())
}
