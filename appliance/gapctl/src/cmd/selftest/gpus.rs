//! The GPUs of the machine: which of them are to be trained on, and whether each that is plugged in works.

use super::{Failure, Line, Session};
use crate::client::Request;
use serde::Deserialize;
use std::collections::BTreeSet;

/// What `/v1/system` says of them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Gpus {
    /// `gpu`, or `cpu` where none can be used.
    #[serde(default)]
    mode: String,
    #[serde(default)]
    gpus: Vec<Gpu>,
    #[serde(default)]
    problems: Vec<String>,
}

/// One that is plugged in.
#[derive(Debug, Deserialize)]
struct Gpu {
    address: String,
    uuid: Option<String>,
    #[serde(default)]
    slices: Vec<String>,
    health: Health,
}

#[derive(Debug, Deserialize)]
struct Health {
    verdict: String,
    #[serde(default)]
    reasons: Vec<String>,
}

impl Gpus {
    /// As they are now.
    pub(super) fn ask(session: &Session) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct System {
            gpus: Option<Gpus>,
        }
        let system: System = session.read_patiently(&Request::get(&["v1", "system"]))?;
        Ok(system.gpus.unwrap_or_default())
    }

    /// Those of the GPUs and slices for jobs that a job can be given now.
    pub(super) fn usable(&self, slots: &[String]) -> Vec<String> {
        if self.mode == "cpu" {
            return Vec::new();
        }
        let failed: BTreeSet<&str> = self
            .gpus
            .iter()
            .filter(|gpu| gpu.health.verdict == "failed")
            .filter_map(|gpu| gpu.uuid.as_deref())
            .collect();
        slots.iter().filter(|slot| !failed.contains(slot.as_str())).cloned().collect()
    }

    /// A line for each that is plugged in, and for all that did not work when they were prepared. One that does not work is no
    /// slot for jobs, so that training alone would not tell of it.
    pub(super) fn lines(&self, slots: &[String]) -> Vec<Line> {
        let line = |on: &str, is_good, details: String| Line {
            part: "gpu",
            on: on.to_owned(),
            is_good: Some(is_good),
            details,
        };
        let mut lines: Vec<Line> = self
            .gpus
            .iter()
            .map(|gpu| {
                let name = gpu.uuid.as_ref().unwrap_or(&gpu.address);
                let verdict = &gpu.health.verdict;
                if verdict != "healthy" {
                    line(name, false, format!("{verdict}: {}", gpu.health.reasons.join("; ")))
                } else if gpu.is_given(slots) {
                    line(name, true, verdict.clone())
                } else {
                    line(name, false, "healthy, and given to no job".to_owned())
                }
            })
            .collect();
        lines.extend(self.problems.iter().map(|problem| line("", false, problem.clone())));
        lines
    }
}

impl Gpu {
    /// Whether it is among what jobs are given, as far as names tell: slices have names of their own.
    fn is_given(&self, slots: &[String]) -> bool {
        match &self.uuid {
            Some(uuid) if self.slices.is_empty() => slots.contains(uuid),
            _ => !slots.is_empty(),
        }
    }
}
