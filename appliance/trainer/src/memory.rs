//! Memory: what a job will need, what there is, and what is used.

use candle_core::{Device, Result};
use gap_contract::{
    Job, Method,
    memory::{DecoderSizes, Estimate, Load},
};
use gap_lm::{device, inference::DecoderConfig};
use std::fs;

/// Estimates a job whose longest batch has `tokens` tokens and whose longest sequence `longest`, with `weight` bytes a frozen
/// weight and `activation` bytes an activation.
#[must_use]
pub fn estimate(
    config: &DecoderConfig,
    job: &Job,
    targets: &[&str],
    [tokens, longest]: [u64; 2],
    [weight, activation]: [u64; 2],
) -> Estimate {
    sizes(config).estimate(&Load {
        adapter: job.lora.as_ref().map(|lora| (lora.r, targets)),
        quantization: job.quantization,
        reference: job.method == Method::Dpo && (job.lora.is_none() || job.adapter.is_some()),
        checkpointing: job.gradient_checkpointing,
        tokens,
        longest,
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
        heads: config.heads as u64,
        layers: config.layers as u64,
        vocabulary: config.vocabulary as u64,
        tied: config.tied,
    }
}

/// Bytes that a job may use on its device. On a GPU what is free. On the processor what is free and what this process has,
/// and no more than its control group's limit.
///
/// # Errors
/// Where the GPU's driver does not answer.
pub fn available(device: &Device) -> Result<u64> {
    Ok(device::memory(device)?.map_or_else(of_processor, |gpu| gpu.free))
}

/// Watches the memory of the device that a job runs on.
#[derive(Debug)]
pub struct Gauge {
    device: Device,
    /// The most that was found in use on a GPU. The processor's kernel remembers by itself.
    most: u64,
}

impl Gauge {
    /// Of a device.
    #[must_use]
    pub const fn new(device: Device) -> Self {
        Self { device, most: 0 }
    }

    /// Looks what a GPU has in use now.
    ///
    /// # Errors
    /// Where its driver does not answer.
    pub fn look(&mut self) -> Result<()> {
        if let Some(gpu) = device::memory(&self.device)? {
            self.most = self.most.max(gpu.total - gpu.free.min(gpu.total));
        }
        Ok(())
    }

    /// Bytes in use at the peak: of a GPU as far as it was looked at, of this process on the processor.
    #[must_use]
    pub fn peak(&self) -> u64 {
        if self.device.is_cpu() { status("VmHWM:").unwrap_or(0) } else { self.most }
    }

    /// The share of what may be used that is used now.
    ///
    /// # Errors
    /// Where the GPU's driver does not answer.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(&self) -> Result<f64> {
        let (used, all) = match device::memory(&self.device)? {
            Some(gpu) => (gpu.total - gpu.free.min(gpu.total), gpu.total),
            None => (status("VmRSS:").unwrap_or(0), of_processor()),
        };
        Ok(used as f64 / all.max(1) as f64)
    }
}

fn of_processor() -> u64 {
    let free = meminfo("MemAvailable:").unwrap_or(u64::MAX).saturating_add(status("VmRSS:").unwrap_or(0));
    free.min(group_limit().unwrap_or(u64::MAX))
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
