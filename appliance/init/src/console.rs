//! The consoles of the machine: every one of them gets every line.
//!
//! `/dev/console` leads to the last `console=` of the command line only, so the list is taken from the kernel. Lines go
//! to the terminals directly and not through the kernel's log, which limits rates and may be silenced.
//!
//! A terminal takes lines at the speed of its serial line, or not at all: Scroll Lock stops a screen for as long as
//! somebody likes. Each console has a thread that waits for it, so that who says something never does.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Longest line that is passed on, in bytes; longer ones are cut into several.
const MAX_LINE: u64 = 4096;
/// Most lines that wait for one console.
const MAX_WAITING: usize = 512;
/// How long the last lines before an end are waited for.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// All active consoles.
#[derive(Debug)]
pub struct Consoles {
    consoles: Vec<Console>,
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
        Self { consoles: sinks.into_iter().map(Console::start).collect() }
    }

    /// Says one line on every console. Everything but plain text in it is escaped. Does not wait: what a console is too
    /// slow for is left out there, and how much that was is said as soon as it has caught up.
    pub fn line(&self, text: &str) {
        let line: Arc<str> = format!("{}\n", Printable(text)).into();
        for console in &self.consoles {
            console.say(Arc::clone(&line));
        }
    }

    /// Waits until all that was said is out, for at most this long.
    pub fn flush(&self, patience: Duration) {
        let began = Instant::now();
        while self.consoles.iter().any(Console::is_behind) && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(1));
        }
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

/// Lines on their way to one console.
#[derive(Debug)]
struct Console {
    lines: SyncSender<Arc<str>>,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    waiting: AtomicUsize,
    /// Lines that there was no room for since it was last told.
    left_out: AtomicUsize,
}

impl Console {
    fn start(out: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let count = Arc::<Count>::default();
        let counted = Arc::clone(&count);
        // Without a thread nobody takes lines, and there is nobody to tell that either.
        drop(thread::Builder::new().name("console".into()).spawn(move || bring_out(out, &waiting, &counted)));
        Self { lines, count }
    }

    fn say(&self, line: Arc<str>) {
        self.count.waiting.fetch_add(1, Ordering::SeqCst);
        if self.lines.try_send(line).is_err() {
            self.count.left_out.fetch_add(1, Ordering::SeqCst);
            self.count.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn is_behind(&self) -> bool {
        self.count.waiting.load(Ordering::SeqCst) > 0
    }
}

/// Writes lines until nobody can say one any more.
fn bring_out(mut out: impl Write, lines: &Receiver<Arc<str>>, count: &Count) {
    for line in lines {
        // A console that fails is no reason to stop the machine, and there is no place left to say so.
        drop(out.write_all(line.as_bytes()));
        // Those that were left out came after all that waited.
        if count.waiting.load(Ordering::SeqCst) <= 1 {
            let left_out = count.left_out.swap(0, Ordering::SeqCst);
            if left_out > 0 {
                let told = format!("gap-init: {left_out} lines are left out here: this console is too slow\n");
                drop(out.write_all(told.as_bytes()));
            }
        }
        count.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NOCTTY a terminal would become the controlling one of PID 1 and send it its signals.
    OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path)
}

/// Text from outside, with everything escaped that could move a cursor, hide or reorder what is shown.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let plain = c == '\t' || c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic();
            if plain { write!(f, "{c}")? } else { write!(f, "{}", c.escape_unicode())? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

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

    /// A console that shows nothing as long as the test holds its lock.
    #[derive(Clone, Default)]
    struct Held(Arc<Mutex<String>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_console_that_is_held_holds_up_neither_who_speaks_nor_the_others() {
        let (held, other) = (Held::default(), Held::default());
        let consoles = Consoles { consoles: [&held, &other].map(|sink| Console::start(sink.clone())).into() };
        let stuck = held.0.lock().unwrap();
        let said = MAX_WAITING + 100;
        for number in 0..said {
            consoles.line(&number.to_string());
            // The other one is quick enough for all.
            while consoles.consoles[1].is_behind() {
                thread::yield_now();
            }
        }
        let began = Instant::now();
        consoles.flush(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(10), "the end does not wait for it either");
        assert_eq!(other.0.lock().unwrap().lines().count(), said);
        drop(stuck);
        consoles.flush(PATIENCE);
        let shown = held.0.lock().unwrap().clone();
        let (lines, told) = shown.trim_end().rsplit_once('\n').unwrap();
        let out = lines.lines().count();
        assert!(out >= MAX_WAITING && lines.lines().enumerate().all(|(n, line)| line == n.to_string()), "{lines}");
        assert_eq!(told, format!("gap-init: {} lines are left out here: this console is too slow", said - out));
    }
}
