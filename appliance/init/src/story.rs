//! The story of the boot: one calm line a step, and the same steps for the boot report.

use gap_handover::boot_report::Stage;
use std::{fmt::Display, sync::Arc};

use crate::{
    clock,
    console::{Consoles, LAST_LINES},
};

/// Tells each step on the consoles and remembers when it ended.
#[derive(Debug)]
pub struct Story {
    consoles: Arc<Consoles>,
    stages: Vec<Stage>,
}

impl Story {
    /// Begins the story on these consoles.
    pub const fn new(consoles: Arc<Consoles>) -> Self {
        Self { consoles, stages: Vec::new() }
    }

    /// A stage ended just now.
    pub fn stage(&mut self, name: &str) {
        self.stage_at(name, clock::since_boot());
    }

    /// A stage ended at this time since the kernel started.
    pub fn stage_at(&mut self, name: &str, ended: std::time::Duration) {
        self.stages.push(Stage { name: name.into(), ended_ms: u64::try_from(ended.as_millis()).unwrap_or(u64::MAX) });
    }

    /// All stages so far, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Tells something that happened now, with the time since the kernel started.
    pub fn tell(&self, text: impl Display) {
        let now = clock::since_boot();
        self.consoles.line(&format!("gap-init: {:>3}.{:03} s  {text}", now.as_secs(), now.subsec_millis()));
    }

    /// Prints a line that programs look for: `gap-init: ` and the text, nothing between.
    pub fn announce(&self, text: impl Display) {
        self.consoles.line(&format!("gap-init: {text}"));
    }

    /// Waits until all that was told is on the consoles, for a second at most: some may be stuck.
    pub fn flush(&self) {
        self.consoles.flush(LAST_LINES);
    }

    /// The consoles, for those who outlive the story.
    pub fn consoles(&self) -> &Arc<Consoles> {
        &self.consoles
    }
}
