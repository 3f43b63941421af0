//! What a person sees while work goes on: a bar on a terminal, one line a step elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Shows the steps of one command on standard error, so that standard output stays for results.
#[derive(Debug)]
pub struct Terminal {
    interactive: bool,
}

impl Terminal {
    /// For this process's standard error.
    pub fn new() -> Self {
        Self { interactive: std::io::stderr().is_terminal() }
    }

    /// Says that a step was done, or something worth knowing.
    pub fn line(&self, text: impl std::fmt::Display) {
        eprintln!("{text}");
    }

    /// Begins work whose extent is not known beforehand.
    pub fn open_ended(&self) -> Step {
        if !self.interactive {
            return Step { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {elapsed}") {
            bar.set_style(style);
        }
        Step { bar }
    }

    /// Begins a step that handles `total` bytes.
    pub fn bytes(&self, what: &str, total: u64) -> Step {
        if !self.interactive {
            eprintln!("{what} ({})", human_bytes(total));
            return Step { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Step { bar }
    }
}

/// A step under way; gone when dropped.
#[derive(Debug)]
pub struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Says something without breaking the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// `count` more bytes are done.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    /// `done` bytes are done in all.
    pub fn at(&self, done: u64) {
        self.bar.set_position(done);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `1.5 GiB` and the like.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
