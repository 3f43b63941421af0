//! Memory that there is for the cache.

use candle_core::Device;
use gap_lm::device;
use std::fs;

/// Positions that a cache has at least.
pub const LEAST_POSITIONS: usize = 128;
/// What is believed where the system says nothing, in bytes.
const UNKNOWN: u64 = 1 << 30;

/// Bytes that can be taken where a model is computed: what a GPU has left; on the processor what the machine has left, or what
/// the control group leaves if that is less.
pub fn available(device: &Device) -> u64 {
    if let Ok(Some(gpu)) = device::memory(device) {
        return gpu.free;
    }
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text)).unwrap_or(UNKNOWN);
    machine.min(of_group().unwrap_or(u64::MAX))
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What version 2 of control groups leaves to this process's own group.
fn of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup/{own}/{name}")).ok()?.trim().parse().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_left_is_read() {
        let text = "MemTotal:       24633080 kB\nMemFree:          512 kB\nMemAvailable:   20480 kB\n";
        assert_eq!(of_machine(text), Some(20 << 20));
        assert_eq!(of_machine("MemTotal: 1 kB"), None);
    }
}
