//! What is seen while work goes on: a bar on a terminal, one line a step elsewhere, events in JSON for programs.

use super::{Outcome, failure::failed};
use crate::{
    progress::{Stage, Work},
    report::output::print,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often programs are told how far work is.
const INTERVAL: Duration = Duration::from_millis(500);

/// Shows the work of one command on standard error, so that standard output stays for results. Work that is under way
/// when this is dropped has ended.
#[derive(Debug)]
pub struct Terminal {
    view: View,
    /// Bytes done of the work under way.
    done: AtomicU64,
    under_way: Mutex<Option<UnderWay>>,
}

/// Who looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// A person at a terminal.
    Person,
    /// Whoever reads lines.
    Lines,
    /// A program.
    Events,
}

/// Work that began and has not ended.
#[derive(Debug)]
struct UnderWay {
    stage: Stage,
    layer: Option<String>,
    total: Option<u64>,
    bar: ProgressBar,
    told: Instant,
}

/// What programs are told: one JSON object a line. Fields are only ever added.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Begin { stage: Stage, layer: Option<&'a str>, total: Option<u64>, text: &'a str },
    Progress { stage: Stage, layer: Option<&'a str>, done: u64, total: Option<u64> },
    End { stage: Stage, layer: Option<&'a str>, done: u64, total: Option<u64> },
    Note { text: &'a str },
    Error { code: u8, message: &'a str, help: Option<&'a str> },
}

impl Terminal {
    /// For this process's standard error; with `json`, for a program.
    pub fn new(json: bool) -> Self {
        let view = match (json, std::io::stderr().is_terminal()) {
            (true, _) => View::Events,
            (false, true) => View::Person,
            (false, false) => View::Lines,
        };
        Self::showing(view)
    }

    const fn showing(view: View) -> Self {
        Self { view, done: AtomicU64::new(0), under_way: Mutex::new(None) }
    }

    /// Says something worth knowing.
    pub fn note(&self, text: &str) {
        if self.view == View::Events {
            return tell(&Event::Note { text });
        }
        match self.lock().as_ref() {
            Some(work) => work.bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Says what begins now; what was under way has ended.
    pub fn begin(&self, work: &Work<'_>) {
        // Held throughout: several threads may begin something.
        let mut under_way = self.lock();
        self.end(under_way.take());
        let Work { stage, layer, text, bytes: total } = *work;
        let bar = match self.view {
            View::Events => {
                tell(&Event::Begin { stage, layer, total, text });
                ProgressBar::hidden()
            }
            View::Lines => {
                say(&headline(work));
                ProgressBar::hidden()
            }
            View::Person => {
                say(&headline(work));
                bar(total)
            }
        };
        let layer = layer.map(str::to_owned);
        self.done.store(0, Ordering::Relaxed);
        *under_way = Some(UnderWay { stage, layer, total, bar, told: Instant::now() });
    }

    /// `count` more bytes are done; called from any thread.
    pub fn advance(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        self.tell(done);
    }

    /// The same where it shows only now how many bytes there are to do in all.
    pub fn advance_of(&self, count: u64, total: u64) {
        if let Some(work) = self.lock().as_mut().filter(|work| work.total != Some(total)) {
            work.total = Some(total);
            fit(&work.bar, work.total);
        }
        self.advance(count);
    }

    fn tell(&self, done: u64) {
        // Whoever comes while another thread tells need not tell as well.
        let Ok(mut under_way) = self.under_way.try_lock() else { return };
        let Some(work) = under_way.as_mut() else { return };
        work.bar.set_position(work.within(done));
        if self.view == View::Events && work.told.elapsed() >= INTERVAL {
            work.told = Instant::now();
            let layer = work.layer.as_deref();
            tell(&Event::Progress { stage: work.stage, layer, done: work.within(done), total: work.total });
        }
    }

    fn end(&self, work: Option<UnderWay>) {
        let Some(work) = work else { return };
        work.bar.finish_and_clear();
        if self.view == View::Events {
            let done = work.within(self.done.load(Ordering::Relaxed));
            tell(&Event::End { stage: work.stage, layer: work.layer.as_deref(), done, total: work.total });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let last = self.lock().take();
        self.end(last);
    }
}

impl UnderWay {
    /// A mirror that has to be asked again, or what comes on top of the layers, must not lead past the end.
    fn within(&self, done: u64) -> u64 {
        self.total.map_or(done, |total| done.min(total))
    }
}

/// Tells programs why a command failed.
pub fn tell_failure(code: u8, message: &str, help: Option<&str>) {
    tell(&Event::Error { code, message, help });
}

fn tell(event: &Event<'_>) {
    if let Ok(text) = serde_json::to_string(event) {
        say(&text);
    }
}

/// Writes a line to standard error: a whole line at once, so that lines of several threads do not mix. A reader that went
/// away is no reason to stop working.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Writes a line of the result to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// [`Failure::CouldNotRun`](super::Failure::CouldNotRun) if it cannot be written.
pub fn line(text: fmt::Arguments<'_>) -> Outcome {
    print(&format!("{text}\n")).map_err(failed("writing to standard output"))
}

fn headline(work: &Work<'_>) -> String {
    match work.bytes {
        Some(bytes) => format!("{work} ({})", human_bytes(bytes)),
        None => work.to_string(),
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::no_length();
    fit(&bar, total);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows how much there is to do, where that is known.
fn fit(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(total) => {
            bar.set_length(total);
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        }
        None => "{spinner} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// `1.5 GiB` and the like.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_documented_form() {
        let text = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        let begin = Event::Begin { stage: Stage::Fetch, layer: Some("base"), total: Some(5), text: "fetching 1 files" };
        assert_eq!(
            text(&begin),
            r#"{"event":"begin","stage":"fetch","layer":"base","total":5,"text":"fetching 1 files"}"#
        );
        let end = Event::End { stage: Stage::Assemble, layer: None, done: 7, total: None };
        assert_eq!(text(&end), r#"{"event":"end","stage":"assemble","layer":null,"done":7,"total":null}"#);
        let error = Event::Error { code: 3, message: "no", help: None };
        assert_eq!(text(&error), r#"{"event":"error","code":3,"message":"no","help":null}"#);
    }

    #[test]
    fn work_never_leads_past_its_end() {
        let terminal = Terminal::showing(View::Lines);
        terminal.begin(&Work::on(Stage::Fetch, "base", "fetching").about(10));
        terminal.advance(8);
        terminal.advance(8);
        let position = terminal.lock().as_ref().map(|work| (work.bar.position(), work.within(16)));
        assert_eq!(position, Some((10, 10)));
        terminal.begin(&Work::whole(Stage::Assemble, "assembling"));
        assert_eq!(terminal.done.load(Ordering::Relaxed), 0, "new work begins at nothing");
        terminal.advance(7);
        assert_eq!(terminal.lock().as_ref().map(|work| work.within(7)), Some(7));
    }

    #[test]
    fn bytes_add_up_towards_a_total_that_shows_late() {
        let terminal = Terminal::showing(View::Lines);
        terminal.begin(&Work::whole(Stage::Verify, "verifying"));
        let position = || terminal.lock().as_ref().map(|work| (work.bar.position(), work.bar.length(), work.total));
        terminal.advance_of(4, 12);
        assert_eq!(position(), Some((4, Some(12), Some(12))));
        terminal.advance_of(4, 12);
        terminal.advance_of(3, 12);
        assert_eq!(position(), Some((11, Some(12), Some(12))), "what is told is the bytes since the last time");
    }
}
