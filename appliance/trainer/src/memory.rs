//! Memory: what a job will need, what there is, and what is used.

use candle_core::{Device, Result};
use gap_contract::{Job, Method, Quantization};
use gap_lm::{device, inference::DecoderConfig};
use std::fs;

/// What a job will need at its peak, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// The model's weights.
    pub weights: u64,
    /// What is trained beside them, gradients and the optimiser's state.
    pub training: u64,
    /// Activations of the longest batch.
    pub activations: u64,
}

impl Estimate {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights.saturating_add(self.training).saturating_add(self.activations)
    }
}

/// The linear layers of each layer, with outputs and inputs.
fn linears(config: &DecoderConfig) -> [(&'static str, u64, u64); 7] {
    let number = |value: usize| value as u64;
    let (hidden, inner) = (number(config.hidden), number(config.intermediate));
    let (queries, keys) = (number(config.heads * config.head_width), number(config.key_heads * config.head_width));
    [
        ("q_proj", queries, hidden),
        ("k_proj", keys, hidden),
        ("v_proj", keys, hidden),
        ("o_proj", hidden, queries),
        ("gate_proj", inner, hidden),
        ("up_proj", inner, hidden),
        ("down_proj", hidden, inner),
    ]
}

/// Parameters of a model, and those that are trained.
#[must_use]
pub fn parameters(config: &DecoderConfig, job: &Job, targets: &[&str]) -> (u64, u64) {
    let number = |value: usize| value as u64;
    let hidden = number(config.hidden);
    let linears = linears(config);
    let layer: u64 = linears.iter().map(|(_, outputs, inputs)| outputs * inputs).sum::<u64>() + 2 * hidden;
    let tables = number(config.vocabulary) * hidden * if config.tied { 1 } else { 2 };
    let base = number(config.layers) * layer + tables + hidden;
    let trained = match &job.lora {
        None => base,
        Some(lora) => {
            let own = linears.iter().filter(|(name, ..)| targets.contains(name));
            number(config.layers) * own.map(|(_, outputs, inputs)| lora.r * (outputs + inputs)).sum::<u64>()
        }
    };
    (base, trained)
}

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
    let (base, trained) = parameters(config, job, targets);
    let (weights, training) = match job.lora {
        Some(_) => (frozen(config, job, base, weight), trained * 16),
        // Value, gradient and two moments.
        None => (base * 4, trained * 12 + if job.method == Method::Dpo { base * 4 } else { 0 }),
    };
    let number = |value: usize| value as u64;
    let (hidden, inner) = (number(config.hidden), number(config.intermediate));
    let (queries, keys) = (number(config.heads * config.head_width), number(config.key_heads * config.head_width));
    let rank = job.lora.as_ref().map_or(0, |lora| lora.r) * number(targets.len());
    let kept = 2 * hidden + 2 * (queries + keys) + 2 * inner + rank;
    let passing = 4 * hidden + 3 * queries + 4 * inner;
    let layers = number(config.layers);
    let row = if job.gradient_checkpointing { layers * hidden + kept + passing } else { layers * kept + passing };
    let logits = (4 << 20) * 4 * 2;
    Estimate {
        weights,
        training,
        activations: tokens.saturating_mul(row).saturating_mul(activation).saturating_add(logits),
    }
}

/// Bytes of a frozen base with `weight` bytes a weight. In four bits a block of 64 has its largest value as well, in 32
/// bits or in eight and 32 for each 256; one matrix of a layer is unpacked a piece at a time.
fn frozen(config: &DecoderConfig, job: &Job, base: u64, weight: u64) -> u64 {
    let packed =
        config.layers as u64 * linears(config).iter().map(|(_, outputs, inputs)| outputs * inputs).sum::<u64>();
    let kept = (base - packed) * weight;
    match job.quantization {
        None => base * weight,
        Some(Quantization::Nf4) => kept + packed / 2 + packed / 64 * 4,
        Some(Quantization::Nf4DoubleQuant) => kept + packed / 2 + packed / 64 + packed / (64 * 256) * 4,
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
