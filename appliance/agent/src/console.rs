//! What the agent says on the consoles: single lines that begin with `gapd: `.
//!
//! PID 1 takes them at the speed of a serial line. A thread of its own waits for that; who says something never does.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Most lines that wait for the consoles.
const MAX_WAITING: usize = 256;
/// How long the end of the process waits for them.
const LAST_LINES: Duration = Duration::from_secs(1);

static CONSOLE: OnceLock<Console> = OnceLock::new();

/// Says one line on the consoles, which are the standard output that PID 1 gave. Does not wait: what the consoles are too
/// slow for is left out, and how much that was is said as soon as they have caught up.
///
/// Everything but plain text in it is escaped. A console that fails is no reason to stop.
pub fn say(line: impl fmt::Display) {
    let line = format!("gapd: {}\n", Printable(&line.to_string()));
    CONSOLE.get_or_init(|| Console::start(io::stdout())).say(line);
}

/// Waits until all that was said is out, for a second at most. To be called at the end of the process.
pub fn flush() {
    if let Some(console) = CONSOLE.get() {
        console.flush(LAST_LINES);
    }
}

/// Lines on their way out.
struct Console {
    lines: SyncSender<String>,
    count: Arc<Count>,
}

#[derive(Default)]
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
        drop(thread::Builder::new().name("console".to_owned()).spawn(move || bring_out(out, &waiting, &counted)));
        Self { lines, count }
    }

    fn say(&self, line: String) {
        self.count.waiting.fetch_add(1, Ordering::SeqCst);
        if self.lines.try_send(line).is_err() {
            self.count.left_out.fetch_add(1, Ordering::SeqCst);
            self.count.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn flush(&self, patience: Duration) {
        let began = Instant::now();
        while self.count.waiting.load(Ordering::SeqCst) > 0 && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes lines until nobody can say one any more.
fn bring_out(mut out: impl Write, lines: &Receiver<String>, count: &Count) {
    for mut line in lines {
        // Those that were left out came after all that waited.
        if count.waiting.load(Ordering::SeqCst) <= 1 {
            let left_out = count.left_out.swap(0, Ordering::SeqCst);
            if left_out > 0 {
                line.push_str(&format!("gapd: {left_out} lines are left out here: the console is too slow\n"));
            }
        }
        drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
        count.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Text from outside, with everything escaped that could move a cursor, hide or reorder what is shown.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let plain = c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic();
            if plain { write!(f, "{c}")? } else { write!(f, "{}", c.escape_unicode())? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_name_cannot_write_a_line_of_its_own() {
        assert_eq!(Printable("eth0\ngapd: fine\x1b[2J").to_string(), "eth0\\u{a}gapd: fine\\u{1b}[2J");
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
    fn a_console_that_does_not_move_holds_nobody_up_and_says_what_it_left_out() {
        let held = Held::default();
        let console = Console::start(held.clone());
        let stuck = held.0.lock().unwrap();
        let said = MAX_WAITING + 100;
        for n in 0..said {
            console.say(format!("{n}\n"));
        }
        console.flush(Duration::from_millis(20));
        drop(stuck);
        console.flush(Duration::from_secs(10));
        let shown = held.0.lock().unwrap().clone();
        let (lines, told) = shown.trim_end().rsplit_once('\n').unwrap();
        let out = lines.lines().count();
        assert!(out >= MAX_WAITING && lines.lines().enumerate().all(|(n, line)| line == n.to_string()), "{lines}");
        assert_eq!(told, format!("gapd: {} lines are left out here: the console is too slow", said - out));
    }
}
