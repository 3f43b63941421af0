//! Memory that there is for the cache.

use candle_core::Device;
use gap_lm::device;
use std::{fs, path::Path};

/// Positions that a cache has at least.
pub const LEAST_POSITIONS: usize = 128;
/// What is believed where the system says nothing, in bytes.
const UNKNOWN: u64 = 1 << 30;
/// Where version 2 of control groups is mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that can be taken where a model is computed: what a GPU has left; on the processor what the machine has left, or what
/// the control groups leave if that is less.
pub fn available(device: &Device) -> u64 {
    if let Ok(Some(gpu)) = device::memory(device) {
        return gpu.free;
    }
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text)).unwrap_or(UNKNOWN);
    machine.min(of_own_groups().unwrap_or(u64::MAX))
}

/// How many positions of `each` bytes a cache gets: for `asked` bytes, or for a quarter of what is `available`; at least and at
/// most so many.
///
/// # Errors
/// The number that there is no room for.
pub fn positions(each: u64, asked: Option<u64>, available: u64, least: usize, most: usize) -> Result<usize, usize> {
    let wanted = asked.unwrap_or(available / 4);
    let positions = usize::try_from(wanted / each.max(1)).unwrap_or(usize::MAX).min(most);
    if positions < least || each.saturating_mul(positions as u64) > available {
        return Err(positions.max(least));
    }
    Ok(positions)
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn of_own_groups() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    of_groups(Path::new(GROUPS), own)
}

/// The least that a group and those above it leave. None where none of them has a limit.
fn of_groups(root: &Path, own: &str) -> Option<u64> {
    let own = root.join(own);
    own.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(of_group).min()
}

/// What one group leaves: its limit, less what it uses and cannot give back. Files that were read, such as weights, count as
/// used until something else needs the room.
fn of_group(dir: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let given_back = read("memory.stat")
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok()));
    let used = number("memory.current")?.saturating_sub(given_back.unwrap_or_default());
    Some(number("memory.max")?.saturating_sub(used))
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

    #[test]
    fn a_cache_takes_a_quarter_or_what_is_asked_and_never_more_than_there_is() {
        assert_eq!(positions(10, None, 8000, 128, 1000), Ok(200));
        assert_eq!(positions(10, None, 8000, 128, 150), Ok(150));
        assert_eq!(positions(10, None, 4000, 128, 1000), Err(128));
        assert_eq!(positions(10, Some(8000), 8000, 128, 1000), Ok(800));
        assert_eq!(positions(10, Some(8000), 7999, 128, 1000), Err(800));
    }

    fn group(dir: &Path, limit: &str, used: u64, files: u64) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("memory.max"), format!("{limit}\n")).unwrap();
        fs::write(dir.join("memory.current"), format!("{used}\n")).unwrap();
        fs::write(dir.join("memory.stat"), format!("anon 1\nfile {files}\ninactive_file {files}\n")).unwrap();
    }

    #[test]
    fn files_that_were_read_leave_room_for_a_cache() {
        let root = tempfile::tempdir().unwrap();
        group(&root.path().join("jobs"), "8000", 7900, 4000);
        assert_eq!(of_groups(root.path(), "jobs"), Some(4100));
        fs::remove_file(root.path().join("jobs/memory.stat")).unwrap();
        assert_eq!(of_groups(root.path(), "jobs"), Some(100));
    }

    #[test]
    fn the_tightest_group_above_counts() {
        let root = tempfile::tempdir().unwrap();
        group(&root.path().join("all/jobs/one"), "max", 10, 0);
        group(&root.path().join("all/jobs"), "1000", 400, 100);
        group(&root.path().join("all"), "9000", 500, 0);
        assert_eq!(of_groups(root.path(), "all/jobs/one"), Some(700));
        assert_eq!(of_groups(root.path(), "all"), Some(8500));
        assert_eq!(of_groups(root.path(), "elsewhere"), None);
    }
}
