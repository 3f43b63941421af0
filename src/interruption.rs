//! Ctrl-C and requests to end, where something has to be put away first: directories for temporary files, with a site's key
//! in them or a whole image.

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    fs, io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// What asks a program to end.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// Exit codes of programs that a signal ended begin here.
const BY_SIGNAL: i32 = 128;

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on the first request to end is only [taken note of](is_asked): what goes on has to look. A second one ends the
/// program at once. A signal that whoever started the program wants ignored, as `nohup` does, stays so.
///
/// # Errors
/// What the system said.
pub fn heed() -> io::Result<()> {
    let ignored = ignored()?;
    for signal in SIGNALS.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
        // In this order: the first request sets what the second one finds.
        flag::register_conditional_shutdown(signal, BY_SIGNAL + signal, Arc::clone(&ASKED))?;
        flag::register(signal, Arc::clone(&ASKED))?;
    }
    Ok(())
}

/// The signals that this process ignores, a bit each: the first one is the lowest (proc_pid_status(5), `SigIgn`).
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status names no ignored signals"))
}

/// Whether the program was asked to end. Never, before [`heed`] was called.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
