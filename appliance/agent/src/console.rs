//! What the agent says on the consoles: single lines that begin with `gapd: `.

use gap_console::{LAST_LINES, Outlet, Printable};
use std::{fmt, io, slice, sync::OnceLock};

/// PID 1 takes what is said there, at the speed of a serial line.
static CONSOLE: OnceLock<Outlet> = OnceLock::new();

/// Says one line on the consoles, which are the standard output that PID 1 gave. Does not wait: what the consoles are too
/// slow for is left out, and how much that was is said as soon as they have caught up.
///
/// Everything but plain text in it is escaped. A console that fails is no reason to stop.
pub fn say(line: impl fmt::Display) {
    let line = format!("gapd: {}", Printable(&line.to_string()));
    CONSOLE.get_or_init(|| Outlet::start("gapd", io::stdout())).say(line.into());
}

/// Waits until all that was said is out, for a second at most. To be called at the end of the process.
pub fn flush() {
    if let Some(console) = CONSOLE.get() {
        gap_console::flush(slice::from_ref(console), LAST_LINES);
    }
}
