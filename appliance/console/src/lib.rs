//! What the programs of an appliance say on its consoles: lines that are safe to show, and threads that bring them out.
//!
//! A console takes lines at the speed of a serial line, or not at all: Scroll Lock stops a screen for as long as somebody
//! likes. Each has a thread that waits for it, so that who says something never does.

use std::{
    fmt,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Most lines that wait for one console.
const MAX_WAITING: usize = 512;
/// How long the last lines before an end are waited for.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines on their way to one console.
#[derive(Debug)]
pub struct Outlet {
    lines: SyncSender<Arc<str>>,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    waiting: AtomicUsize,
    /// Lines that there was no room for since it was last told.
    left_out: AtomicUsize,
}

impl Outlet {
    /// Starts the thread, which takes over the signals that are blocked now. `speaker` is who tells of lines that were left
    /// out.
    pub fn start(speaker: &'static str, out: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let count = Arc::<Count>::default();
        let counted = Arc::clone(&count);
        let bring = move || bring_out(speaker, out, &waiting, &counted);
        // Without a thread nobody takes lines, and there is nobody to tell that either.
        drop(thread::Builder::new().name("console".to_owned()).spawn(bring));
        Self { lines, count }
    }

    /// Says a line, which does not end with a line break yet and holds only what may be shown ([`Printable`]). Does not
    /// wait: what the console is too slow for is left out, and how much that was is said as soon as it has caught up.
    pub fn say(&self, line: Arc<str>) {
        self.count.waiting.fetch_add(1, Ordering::SeqCst);
        if self.lines.try_send(line).is_err() {
            self.count.left_out.fetch_add(1, Ordering::SeqCst);
            self.count.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether lines wait.
    pub fn is_behind(&self) -> bool {
        self.count.waiting.load(Ordering::SeqCst) > 0
    }
}

/// Waits until all that was said is out everywhere, for at most this long.
pub fn flush(outlets: &[Outlet], patience: Duration) {
    let began = Instant::now();
    while outlets.iter().any(Outlet::is_behind) && began.elapsed() < patience {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Writes lines until nobody can say one any more. A console that fails is no reason to stop, and there is no place left
/// to say so.
fn bring_out(speaker: &str, mut out: impl Write, lines: &Receiver<Arc<str>>, count: &Count) {
    let mut write = |line: &str| drop(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()));
    for line in lines {
        write(&line);
        // Those that were left out came after all that waited.
        if count.waiting.load(Ordering::SeqCst) <= 1 {
            let left_out = count.left_out.swap(0, Ordering::SeqCst);
            if left_out > 0 {
                write(&format!("{speaker}: {left_out} lines are left out here: this console is too slow"));
            }
        }
        count.waiting.fetch_sub(1, Ordering::SeqCst);
    }
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
    use std::{io, sync::Mutex};

    #[test]
    fn a_name_cannot_write_a_line_of_its_own() {
        assert_eq!(Printable("eth0\ngapd: fine\x1b[2J\u{202e}").to_string(), "eth0\\u{a}gapd: fine\\u{1b}[2J\\u{202e}");
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
        let outlets = [&held, &other].map(|sink| Outlet::start("x", sink.clone()));
        let stuck = held.0.lock().unwrap();
        let said = MAX_WAITING + 100;
        for number in 0..said {
            outlets.iter().for_each(|outlet| outlet.say(number.to_string().into()));
            // The other one is quick enough for all.
            while outlets[1].is_behind() {
                thread::yield_now();
            }
        }
        let began = Instant::now();
        flush(&outlets, Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(10), "the end does not wait for it either");
        assert_eq!(other.0.lock().unwrap().lines().count(), said);
        drop(stuck);
        flush(&outlets, Duration::from_secs(60));
        let shown = held.0.lock().unwrap().clone();
        let (lines, told) = shown.trim_end().rsplit_once('\n').unwrap();
        let out = lines.lines().count();
        assert!(out >= MAX_WAITING && lines.lines().enumerate().all(|(n, line)| line == n.to_string()), "{lines}");
        assert_eq!(told, format!("x: {} lines are left out here: this console is too slow", said - out));
    }
}
