//! Something in the appliance watches GPUs and machine.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::recipe::Work;

pub(super) const RULE: Rule = Rule {
    group: Group::Infrastructure,
    name: "monitoring",
    otherwise: "no job of the recipe trains or serves a model",
    apply,
};

/// Debian packages that watch.
const PACKAGES: [&str; 9] = [
    "datacenter-gpu-manager",
    "datacenter-gpu-manager-4-core",
    "grafana",
    "node-exporter",
    "nvidia-smi",
    "nvtop",
    "prometheus",
    "prometheus-node-exporter",
    "prometheus-dcgm-exporter",
];
/// Python distributions that watch.
const WHEELS: [&str; 4] = ["nvidia-ml-py", "nvitop", "gpustat", "prometheus-client"];
/// The appliance's agent, which watches too.
const AGENT: &str = "gap-agent";

fn apply(facts: &Facts, findings: &mut Findings) {
    if facts.jobs.iter().all(|job| job.work == Work::Other) {
        return;
    }
    let found = facts.images.iter().find_map(|image| {
        let agent = image.programs.iter().any(|program| program == AGENT).then_some(AGENT);
        let debian = || PACKAGES.into_iter().find(|name| image.debian_package(name).is_some());
        let wheel = || WHEELS.into_iter().find(|name| image.wheel(name).is_some());
        agent.or_else(debian).or_else(wheel).map(|name| (name, &image.name))
    });
    match found {
        Some((name, image)) => findings.pass(Subject::image(image), format!("`{name}` is in it")),
        None => {
            let reason = "nothing in the appliance watches GPUs, memory and disk";
            let remedy =
                "add the agent, `prometheus-node-exporter`, `nvidia-smi` or the wheel `nvidia-ml-py` to an image";
            findings.warn(Subject::RECIPE, reason, remedy);
        }
    }
}
