//! The consoles of the machine: every one of them gets every line.
//!
//! `/dev/console` leads to the last `console=` of the command line only, so the list is taken from the kernel. Lines go
//! to the terminals directly and not through the kernel's log, which limits rates and may be silenced.

pub use gap_console::LAST_LINES;
use gap_console::{Outlet, Printable};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Longest line that is passed on, in bytes; longer ones are cut into several.
const MAX_LINE: u64 = 4096;

/// All active consoles.
#[derive(Debug)]
pub struct Consoles {
    outlets: Vec<Outlet>,
}

impl Consoles {
    /// Opens the consoles that `sys/class/tty/console/active` lists, or `dev/console` where none can be opened.
    ///
    /// Their threads take over the signals that are blocked now: PID 1 blocks them first.
    pub fn open_from(root: &Path) -> Self {
        let active = fs::read_to_string(root.join("sys/class/tty/console/active")).unwrap_or_default();
        let mut sinks: Vec<File> = active
            .split_whitespace()
            .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))
            .filter_map(|name| open(&root.join("dev").join(name)).ok())
            .collect();
        if sinks.is_empty() {
            sinks.extend(open(&root.join("dev/console")).ok());
        }
        Self { outlets: sinks.into_iter().map(|sink| Outlet::start("gap-init", sink)).collect() }
    }

    /// Says one line on every console. Everything but plain text in it is escaped. Does not wait: what a console is too
    /// slow for is left out there, and how much that was is said as soon as it has caught up.
    pub fn line(&self, text: &str) {
        let line: Arc<str> = Printable(text).to_string().into();
        for outlet in &self.outlets {
            outlet.say(Arc::clone(&line));
        }
    }

    /// Waits until all that was said is out, for at most this long.
    pub fn flush(&self, patience: Duration) {
        gap_console::flush(&self.outlets, patience);
    }

    /// Passes on what `source` says, line by line, until it ends.
    pub fn relay(&self, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        loop {
            line.clear();
            match source.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => self.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NOCTTY a terminal would become the controlling one of PID 1 and send it its signals.
    OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn machine(active: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/class/tty/console")).unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        fs::write(root.path().join("sys/class/tty/console/active"), active).unwrap();
        for name in ["tty0", "ttyS0", "console"] {
            fs::write(root.path().join("dev").join(name), "").unwrap();
        }
        root
    }

    fn shown(root: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(root.path().join("dev").join(name)).unwrap()
    }

    #[test]
    fn every_active_console_gets_the_line() {
        let root = machine("tty0 ttyS0\n");
        let consoles = Consoles::open_from(root.path());
        consoles.line("hello");
        consoles.flush(PATIENCE);
        assert_eq!((shown(&root, "tty0"), shown(&root, "ttyS0")), ("hello\n".into(), "hello\n".into()));
        assert_eq!(shown(&root, "console"), "");
    }

    #[test]
    fn without_a_list_the_kernels_own_console_is_used() {
        let root = machine("../etc/passwd\n");
        let consoles = Consoles::open_from(root.path());
        consoles.line("hello");
        consoles.flush(PATIENCE);
        assert_eq!(shown(&root, "console"), "hello\n");
    }

    #[test]
    fn control_characters_and_reordering_marks_are_escaped() {
        let root = machine("ttyS0\n");
        let consoles = Consoles::open_from(root.path());
        consoles.relay(&b"a\x1b[2Jb\xff\r\nsecond\xe2\x80\xaeline"[..]);
        consoles.flush(PATIENCE);
        assert_eq!(shown(&root, "ttyS0"), "a\\u{1b}[2Jb\\u{fffd}\nsecond\\u{202e}line\n");
    }
}
