//! What runs a job: a container in the appliance, a plain process in tests.

use crate::{
    job::{Job, Level},
    state::Ending,
};
use std::{collections::BTreeSet, sync::Arc};

/// Exit code of a program that ended well.
const EXIT_SUCCEEDED: i32 = 0;
/// Exit code of a program whose command line or job file is wrong: trying again cannot help.
const EXIT_USAGE: i32 = 2;
/// Exit code of a program that was told to stop and left a checkpoint (docs/jobs.md).
const EXIT_STOPPED: i32 = 3;

/// Starts programs.
pub trait Runtime: Send + Sync {
    /// Starts the program of a job and returns without waiting for it.
    ///
    /// # Errors
    /// [`CannotStart`] when nothing runs.
    fn start(&self, job: &Job) -> Result<Started, CannotStart>;

    /// Whether programs may be started now; until then what is queued waits.
    fn is_ready(&self) -> bool {
        true
    }

    /// GPUs of the machine that no program may be given now, by the names of their slots: they failed. Asked before
    /// anything is placed.
    fn failed_slots(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Nothing happened for a while: what makes the next start a quick one may be done. Called on the thread that starts
    /// programs.
    fn idle(&self) {}

    /// Ends whatever an earlier agent left running. Called once, before anything is started.
    fn sweep(&self);

    /// A job has ended, for now or for good: what it left is put in order.
    fn ended(&self, job: &Job);
}

/// A program that was started.
pub struct Started {
    /// What can be done to it.
    pub control: Arc<dyn Control>,
    /// Waits until it and all that it started have ended.
    pub wait: Box<dyn FnOnce() -> End + Send>,
}

/// What can be done to a running program. Nothing happens once it has ended.
pub trait Control: Send + Sync {
    /// Tells it to write a checkpoint and end (`SIGTERM`).
    fn stop(&self);

    /// Ends it and all that it started (`SIGKILL`).
    fn kill(&self);

    /// What it told since what was last kept.
    fn news(&self) -> Vec<News>;

    /// What was last told is in the database. Nothing to be done by who tells each thing once.
    fn kept(&self) {}
}

/// Something that a program told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// How much it matters.
    pub level: Level,
    /// For people.
    pub message: String,
    /// JSON that came with it.
    pub data: Option<String>,
}

/// Why a program was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CannotStart {
    /// What was attempted and what was found.
    pub reason: String,
    /// Whether trying again may help.
    pub is_passing: bool,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// The kernel ended it because it wanted more memory than it was given.
    OutOfMemory,
    /// Nobody knows: whoever watched it was ended itself.
    Unknown,
}

impl End {
    /// What this means for a job that nobody wanted to end, and a reason where there is one.
    pub fn meaning(self, ends_by_itself: bool) -> (Ending, Option<String>) {
        match self {
            Self::Exit(EXIT_SUCCEEDED) if ends_by_itself => (Ending::Success, None),
            Self::Exit(EXIT_SUCCEEDED) => (Ending::Retry, Some("it ended, though it should go on serving".into())),
            // Started again at once it might do so without end.
            Self::Exit(EXIT_STOPPED) => {
                (Ending::Retry, Some("it stopped as if it had been told to (exit code 3); its log says more".into()))
            }
            Self::Exit(EXIT_USAGE) => {
                (Ending::Failure, Some("its command line or job file is wrong (exit code 2); its log says more".into()))
            }
            Self::Exit(code) => (Ending::Retry, Some(format!("it ended with exit code {code}; its log says more"))),
            Self::Signal(signal) => (Ending::Retry, Some(format!("it was ended by signal {signal}"))),
            // What serves is wanted until it is cancelled, and one request may have been too large.
            Self::OutOfMemory if !ends_by_itself => {
                let reason = "it needed more memory than it was given and was ended; serve it with more memory";
                (Ending::Retry, Some(reason.into()))
            }
            Self::OutOfMemory => {
                let reason = "it needed more memory than it was given and was ended; submit it with more memory";
                (Ending::Failure, Some(reason.into()))
            }
            Self::Unknown => (Ending::Retry, Some("how it ended is not known".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_is_started_again_however_it_ended_and_never_at_once() {
        for end in [End::Exit(0), End::Exit(1), End::Exit(3), End::Signal(9), End::OutOfMemory, End::Unknown] {
            let (ending, reason) = end.meaning(false);
            assert!(ending == Ending::Retry && reason.is_some(), "{end:?}");
        }
        assert_eq!(End::Exit(2).meaning(false).0, Ending::Failure, "trying again cannot help");
    }

    #[test]
    fn what_ends_by_itself_has_more_memory_or_fails() {
        assert_eq!(End::OutOfMemory.meaning(true).0, Ending::Failure);
        assert_eq!(End::Exit(3).meaning(true).0, Ending::Retry, "nobody told it to stop");
    }
}
