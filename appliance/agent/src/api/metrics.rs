//! `/metrics`, for Prometheus.

use super::{Api, ApiError, blocking};
use crate::{
    metrics::{Host, Kind, MEDIA_TYPE, Page, render_gpus},
    work::Work,
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use gap_gpu::{PciAddress, health::Verdict, nvml::Sample};
use gap_jobs::State as JobState;
use std::{collections::BTreeMap, sync::Arc};

pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let has_gpus = api.system.gpus.get().is_some_and(|provisioned| !provisioned.gpus.is_empty());
    let samples = if has_gpus { api.system.gpus.samples().await } else { None };
    let text = blocking(move || {
        let mut page = Page::default();
        let xids = api.system.gpus.last_xids();
        appliance(&mut page, &api);
        gpus(&mut page, &api, samples.as_deref(), xids);
        // Before the data volume is there, nothing is known of jobs.
        if let Some(work) = api.work.get() {
            jobs(&mut page, &api, &work)?;
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
    page.one("gapimage_degraded", Kind::Gauge, "Whether damage was found in a layer, or a GPU failed.", degraded);
    page.one("gapimage_jobs_ready", Kind::Gauge, "Whether jobs are taken.", u8::from(api.work.get().is_some()));
}

/// Nothing where there is no GPU. Without `samples` what GPUs measure is left out, and that is told.
fn gpus(page: &mut Page, api: &Api, samples: Option<&[Sample]>, xids: BTreeMap<PciAddress, u32>) {
    let Some(provisioned) = api.system.gpus.now().filter(|provisioned| !provisioned.gpus.is_empty()) else { return };
    let verdicts = [(Verdict::Healthy, "healthy"), (Verdict::Degraded, "degraded"), (Verdict::Failed, "failed")];
    let counts = verdicts.map(|(verdict, name)| {
        let count = provisioned.gpus.iter().filter(|gpu| gpu.health.verdict == verdict).count();
        (vec![("health", name.to_owned())], count)
    });
    page.family("gapimage_gpus", Kind::Gauge, "GPUs by their health.", counts);
    let help = "Whether what GPUs measure is left out: the driver's library does not answer.";
    page.one("gapimage_gpu_metrics_left_out", Kind::Gauge, help, u8::from(samples.is_none()));
    let host = Host { hostname: api.system.hostname.clone(), driver: provisioned.driver, xids };
    render_gpus(page, &host, samples.unwrap_or_default());
}

fn jobs(page: &mut Page, api: &Api, work: &Work) -> Result<(), ApiError> {
    let counts = work.queue().counts()?;
    let count = |state: JobState| {
        let found = counts.iter().find(|(other, _)| *other == state).map_or(0, |(_, count)| *count);
        (vec![("state", state.name().to_owned())], found)
    };
    page.family("gapimage_jobs", Kind::Gauge, "Jobs by their state.", JobState::ALL.map(count));
    page.one("gapimage_servers_ready", Kind::Gauge, "Servers of models that answer.", work.serving.ready());
    let slots = work.machine.without(&api.system.gpus.failed_slots()).slots.len();
    page.one("gapimage_gpu_slots", Kind::Gauge, "GPUs and slices that jobs can be given.", slots);
    page.one("gapimage_job_memory_bytes", Kind::Gauge, "Memory that there is for jobs.", work.machine.memory);
    let (free, total) = work.storage.space().map_err(|_| ApiError::Internal)?;
    page.one("gapimage_data_volume_free_bytes", Kind::Gauge, "Room on the data volume for jobs and files.", free);
    page.one("gapimage_data_volume_size_bytes", Kind::Gauge, "Size of the data volume.", total);
    Ok(())
}
