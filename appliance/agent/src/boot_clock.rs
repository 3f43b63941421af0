//! Time since the kernel started, which every stage of the boot is measured in.

use gap_handover::boot_report::Stage;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the kernel started (`CLOCK_BOOTTIME`).
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0))
}

/// A stage that ended just now.
pub fn stage(name: &str) -> Stage {
    Stage { name: name.into(), ended_ms: now_ms() }
}
