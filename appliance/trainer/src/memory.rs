//! Memory: what a job will need, what there is, and what is used.

use gap_contract::{
    Job, Method,
    memory::{DecoderSizes, Estimate, Load},
};
use gap_lm::inference::DecoderConfig;
use std::fs;

/// Estimates a job whose longest batch has `tokens` tokens, with `weight` bytes a frozen weight and `activation` bytes
/// an activation.
#[must_use]
pub fn estimate(
    config: &DecoderConfig,
    job: &Job,
    targets: &[&str],
    tokens: u64,
    [weight, activation]: [u64; 2],
) -> Estimate {
    sizes(config).estimate(&Load {
        adapter: job.lora.as_ref().map(|lora| (lora.r, targets)),
        quantization: job.quantization,
        reference: job.method == Method::Dpo,
        checkpointing: job.gradient_checkpointing,
        tokens,
        weight,
        activation,
    })
}

fn sizes(config: &DecoderConfig) -> DecoderSizes {
    DecoderSizes {
        hidden: config.hidden as u64,
        intermediate: config.intermediate as u64,
        queries: (config.heads * config.head_width) as u64,
        keys: (config.key_heads * config.head_width) as u64,
        layers: config.layers as u64,
        vocabulary: config.vocabulary as u64,
        tied: config.tied,
    }
}

/// Bytes that this process may use: what is free, what it has, and no more than its control group's limit.
#[must_use]
pub fn available() -> u64 {
    let free = meminfo("MemAvailable:").unwrap_or(u64::MAX).saturating_add(status("VmRSS:").unwrap_or(0));
    free.min(group_limit().unwrap_or(u64::MAX))
}

/// Bytes that this process had at its peak.
#[must_use]
pub fn peak() -> u64 {
    status("VmHWM:").unwrap_or(0)
}

/// The share of what may be used that is used now.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a share")]
pub fn share() -> f64 {
    let used = status("VmRSS:").unwrap_or(0);
    used as f64 / available().max(1) as f64
}

fn meminfo(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn status(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

/// The lowest limit of the control groups that this process is in.
fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let mut dir = std::path::Path::new("/sys/fs/cgroup").join(own);
    let mut least = None::<u64>;
    loop {
        let limit = fs::read_to_string(dir.join("memory.max")).ok().and_then(|text| text.trim().parse::<u64>().ok());
        least = match (least, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if dir == std::path::Path::new("/sys/fs/cgroup") || !dir.pop() {
            return least;
        }
    }
}
