//! A job as the queue knows it. What exactly it runs is the business of whoever submits and starts it: the queue keeps
//! that as text.

use crate::{
    identifier::JobId,
    placement::{Demand, Placement},
    state::State,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Trains a model; stops with a checkpoint and goes on from it.
    Train,
    /// Measures a model.
    Eval,
    /// Serves a model until it is cancelled.
    Serve,
    /// Anything else that ends by itself.
    Run,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Eval, Self::Serve, Self::Run];

    /// The name in the database, the release and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Serve => "serve",
            Self::Run => "run",
        }
    }

    /// The prefix of its jobs' names.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Train => JobId::TRAINING,
            _ => JobId::OTHER,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no kind of job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of job: train, eval, serve and run are")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.into()))
    }
}

/// How often a job that fails is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first one included; 0 means without end.
    pub attempts: u32,
    /// Wait before the second attempt, in milliseconds; it doubles with each further one.
    pub first_delay_ms: u64,
    /// Longest wait, in milliseconds.
    pub longest_delay_ms: u64,
}

impl Retry {
    /// One attempt.
    pub const NEVER: Self = Self { attempts: 1, first_delay_ms: 0, longest_delay_ms: 0 };
    /// What serves is started again for as long as it is wanted.
    pub const ALWAYS: Self = Self { attempts: 0, first_delay_ms: 1_000, longest_delay_ms: 60_000 };

    /// Whether there is another attempt after `failures` failures in a row.
    pub const fn allows(self, failures: u32) -> bool {
        self.attempts == 0 || failures < self.attempts
    }

    /// The wait after the failure number `failures` (1, 2, …).
    pub fn delay(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let delay = self.first_delay_ms.saturating_mul(1 << doublings);
        Duration::from_millis(delay.min(self.longest_delay_ms))
    }
}

/// A job to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// What it is for.
    pub kind: Kind,
    /// What it is called: for people, and to find the job that serves a model.
    pub name: String,
    /// What is run, as whoever starts it understands it.
    pub request: String,
    /// What it needs of the machine.
    pub demand: Demand,
    /// Higher ones start first.
    pub priority: i32,
    /// How often it is tried.
    pub retry: Retry,
    /// Longest time that it may run in all attempts together.
    pub time_limit: Option<Duration>,
    /// Jobs that must have succeeded before.
    pub needs: Vec<JobId>,
}

/// A job in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name, which no other has.
    pub id: JobId,
    /// The place in the order of submission, from 1.
    pub sequence: i64,
    /// What it is for.
    pub kind: Kind,
    /// What it is called.
    pub name: String,
    /// What is run.
    pub request: String,
    /// Where it is in its life.
    pub state: State,
    /// What it needs of the machine.
    pub demand: Demand,
    /// Where it runs, while it does.
    pub placement: Option<Placement>,
    /// Higher ones start first.
    pub priority: i32,
    /// How often it is tried.
    pub retry: Retry,
    /// Longest time that it may run in all attempts together.
    pub time_limit: Option<Duration>,
    /// Jobs that must have succeeded before.
    pub needs: Vec<JobId>,
    /// How often it was started.
    pub starts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Not started before, in milliseconds since 1970.
    pub not_before: i64,
    /// How long it has run in all, as far as was noted.
    pub ran: Duration,
    /// Why it is in its state, where there is something to say.
    pub reason: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub created_at: i64,
    /// When it was started first.
    pub started_at: Option<i64>,
    /// When it became final.
    pub finished_at: Option<i64>,
}

/// How much a line about a job matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What is to be expected.
    Info,
    /// What somebody should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl Level {
    /// The name in the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level of this name; what is unknown is shown as information.
    pub fn named(text: &str) -> Self {
        match text {
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => Self::Info,
        }
    }
}

/// Something that happened to a job, or that it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Its place in the order of all events, from 1.
    pub sequence: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// How much it matters.
    pub level: Level,
    /// The state that the job came to, when it changed.
    pub state: Option<State>,
    /// For people.
    pub message: String,
    /// JSON that the job told with it; for a start on GPUs, an object whose `gpus` are their names.
    pub data: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let retry = Retry { attempts: 5, first_delay_ms: 100, longest_delay_ms: 350 };
        let delays: Vec<u128> = (1..5).map(|failures| retry.delay(failures).as_millis()).collect();
        assert_eq!(delays, [100, 200, 350, 350]);
        assert_eq!(Retry::ALWAYS.delay(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn attempts_end_or_never_do() {
        assert!(!Retry::NEVER.allows(1));
        assert!(Retry::ALWAYS.allows(u32::MAX));
        let retry = Retry { attempts: 3, ..Retry::ALWAYS };
        assert!(retry.allows(2) && !retry.allows(3));
    }
}
