//! The two clocks of the boot: how long it has run, and what time it is at least.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Time since the kernel started (`CLOCK_BOOTTIME`).
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The wall clock, seconds since 1970; 0 when it is set before that.
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time when the initramfs was built, seconds since 1970, from `gap/build-time`.
///
/// It is a lower bound for the present: a machine whose battery is empty comes up in 1970 or in the year of its board.
pub fn build_time_from(root: &Path) -> Option<u64> {
    fs::read_to_string(root.join("gap/build-time")).ok()?.trim().parse().ok()
}

/// Sets the wall clock to this time, seconds since 1970. The clock on the board is left as it is.
///
/// # Errors
/// What the kernel answered; nobody but root may do it.
pub fn set_wall(seconds: u64) -> io::Result<()> {
    let seconds = i64::try_from(seconds).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_time_is_decimal_seconds() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(build_time_from(root.path()), None);
        fs::create_dir(root.path().join("gap")).unwrap();
        fs::write(root.path().join("gap/build-time"), "1700000000\n").unwrap();
        assert_eq!(build_time_from(root.path()), Some(1_700_000_000));
    }

    #[test]
    fn the_machine_has_been_up_for_some_time() {
        assert!(since_boot() > Duration::ZERO);
        assert!(wall() > 1_700_000_000);
    }
}
