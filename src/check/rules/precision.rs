//! The GPUs know the numbers that jobs compute with.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::recipe::{Capability, Gpu, Precision, Work};
use serde_json::Value;

pub(super) const RULE: Rule =
    Rule { group: Group::Infrastructure, name: "precision", otherwise: "no job of the recipe trains on GPUs", apply };

/// bfloat16 begins with Ampere.
const BF16_LEAST: Capability = Capability::new(8, 0);
/// Tensor cores, without which 16 bits gain nothing, begin with Volta.
const TENSOR_CORES: Capability = Capability::new(7, 0);

fn apply(facts: &Facts, findings: &mut Findings) {
    let Some(gpu) = facts.target.as_ref().and_then(|target| target.gpu) else { return };
    for job in facts.jobs.iter().filter(|job| !job.is_for_processor()) {
        let Work::Train(training) = &job.work else { continue };
        let subject = Subject::job(&job.name);
        let name = format!("`precision = \"{}\"`", training.precision.name());
        judge(findings, subject, &name, wanted(training.precision), &gpu, true);
    }
    let owners = facts.configs.iter().filter_map(|config| Some((config, config.content.as_ref().ok()?)));
    for (config, content) in owners {
        for (key, wanted) in [("bf16", Some(BF16_LEAST)), ("fp16", Some(TENSOR_CORES))] {
            if super::configuration::is_set(content, key, &Value::Bool(true)) {
                let subject = Subject::config(&config.owner, &config.path);
                judge(findings, subject, &format!("`{key}: true`"), wanted, &gpu, false);
            }
        }
    }
}

const fn wanted(precision: Precision) -> Option<Capability> {
    match precision {
        Precision::Bf16 | Precision::PureBf16 => Some(BF16_LEAST),
        Precision::Fp16 => Some(TENSOR_CORES),
        Precision::Fp32 => None,
    }
}

fn judge(findings: &mut Findings, subject: Subject, what: &str, least: Option<Capability>, gpu: &Gpu, say_pass: bool) {
    let has = format!("the {} has {} ({})", gpu.name, gpu.capability, gpu.capability.architecture());
    match least {
        Some(least) if gpu.capability < least => {
            let reason = format!("{what} needs compute capability {least} or newer, and {has}");
            let remedy = if gpu.capability >= TENSOR_CORES { "use fp16" } else { "use fp32" };
            findings.fail(subject, reason, remedy);
        }
        _ if say_pass => findings.pass(subject, format!("{what}: {has}")),
        _ => {}
    }
}
