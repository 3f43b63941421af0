//! The life of a job: its states, and what may happen in each.
//!
//! ```text
//!            claim            ended well
//! queued ─────────▶ running ─────────────▶ succeeded
//!  ▲ │ ▲             │ │ │ ended badly
//!  │ │ └─────────────┘ │ └───────────────▶ queued (attempts left) or failed
//!  │ │   interrupted   │ pause
//!  │ │ pause           ▼
//!  │ └──▶ paused ◀── pausing
//!  └────────┘ resume
//! ```
//! `cancel` leads from every state that is not final to `cancelled`, by way of `cancelling` where a program has to be
//! stopped first.

use std::{fmt, str::FromStr};

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It waits: for room, for other jobs, or for the end of a pause after a failure.
    Queued,
    /// Its program runs, or is being started.
    Running,
    /// Its program was told to write a checkpoint and end.
    Pausing,
    /// It is left alone until somebody resumes it.
    Paused,
    /// Its program was told to end for good.
    Cancelling,
    /// It did what it was made for. Final.
    Succeeded,
    /// It did not, and is not tried again. Final.
    Failed,
    /// Somebody did not want it any more. Final.
    Cancelled,
}

/// Something that happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is room for it: it is about to be started.
    Claim,
    /// Somebody wants it to stop for a while.
    Pause,
    /// Somebody wants it to go on.
    Resume,
    /// Somebody does not want it any more.
    Cancel,
    /// Its program ended.
    Ended(Ending),
    /// The agent found it in the database at its own start: whatever ran is gone.
    Recover,
    /// A job that it needs will never succeed.
    Orphan,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Well.
    Success,
    /// It stopped because it was told to, with a checkpoint where its kind has one.
    Stopped,
    /// Badly, and it may be tried again.
    Retry,
    /// Badly, and trying again cannot help.
    Failure,
}

/// An event that a state does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job is {state}, so it cannot {}", verb(*.event))]
pub struct Refused {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can happen to it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a program of it may be running, so that it holds its place.
    pub const fn holds_place(self) -> bool {
        matches!(self, Self::Running | Self::Pausing | Self::Cancelling)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Refused`] when this state does not take that event.
    pub const fn after(self, event: Event) -> Result<Self, Refused> {
        let next = match (self, event) {
            (Self::Queued, Event::Claim) => Self::Running,
            (Self::Queued, Event::Pause) => Self::Paused,
            (Self::Queued, Event::Cancel) => Self::Cancelled,
            (Self::Queued | Self::Paused, Event::Orphan) => Self::Failed,
            (Self::Running, Event::Pause) => Self::Pausing,
            (Self::Paused, Event::Resume) => Self::Queued,
            (Self::Paused, Event::Cancel) => Self::Cancelled,
            (Self::Running | Self::Pausing, Event::Cancel) => Self::Cancelling,
            (Self::Running, Event::Ended(ending)) => match ending {
                Ending::Success => Self::Succeeded,
                // The agent itself stops, or it is tried again: it goes on later.
                Ending::Stopped | Ending::Retry => Self::Queued,
                Ending::Failure => Self::Failed,
            },
            // It may have been done before the word reached it. A failure while pausing shows when it is resumed.
            (Self::Pausing, Event::Ended(Ending::Success)) => Self::Succeeded,
            (Self::Pausing, Event::Ended(_) | Event::Recover) => Self::Paused,
            (Self::Cancelling, Event::Ended(_) | Event::Recover) => Self::Cancelled,
            (Self::Running, Event::Recover) => Self::Queued,
            // What is asked for is so already.
            (Self::Pausing | Self::Paused, Event::Pause) => self,
            (Self::Cancelling | Self::Cancelled, Event::Cancel) => self,
            (state, event) => return Err(Refused { state, event }),
        };
        Ok(next)
    }
}

const fn verb(event: Event) -> &'static str {
    match event {
        Event::Claim => "be started",
        Event::Pause => "be paused",
        Event::Resume => "be resumed",
        Event::Cancel => "be cancelled",
        Event::Ended(_) => "end",
        Event::Recover => "be recovered",
        Event::Orphan => "lose what it needs",
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a job")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| UnknownState(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [Event; 10] = [
        Event::Claim,
        Event::Pause,
        Event::Resume,
        Event::Cancel,
        Event::Ended(Ending::Success),
        Event::Ended(Ending::Stopped),
        Event::Ended(Ending::Retry),
        Event::Ended(Ending::Failure),
        Event::Recover,
        Event::Orphan,
    ];

    #[test]
    fn a_name_is_read_back() {
        for state in State::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert!("done".parse::<State>().is_err());
    }

    #[test]
    fn what_holds_a_place_always_gives_it_back_when_its_program_ends() {
        for state in State::ALL.into_iter().filter(|state| state.holds_place()) {
            for ending in [Ending::Success, Ending::Stopped, Ending::Retry, Ending::Failure] {
                assert!(!state.after(Event::Ended(ending)).unwrap().holds_place());
            }
            assert!(!state.after(Event::Recover).unwrap().holds_place());
        }
    }

    #[test]
    fn only_a_claim_makes_a_program_run() {
        for state in State::ALL.into_iter().filter(|state| !state.holds_place()) {
            for event in EVENTS.into_iter().filter(|event| *event != Event::Claim) {
                assert!(state.after(event).is_ok_and(State::holds_place).then_some(()).is_none(), "{state} {event:?}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_cannot_be_done_and_why() {
        let refused = State::Succeeded.after(Event::Cancel).unwrap_err();
        assert_eq!(refused.to_string(), "the job is succeeded, so it cannot be cancelled");
    }

    proptest! {
        #[test]
        fn nothing_leads_out_of_a_final_state(path in proptest::collection::vec(0..EVENTS.len(), 0..40)) {
            let mut state = State::Queued;
            for index in path {
                let next = state.after(EVENTS[index]).unwrap_or(state);
                prop_assert!(!state.is_final() || next == state);
                state = next;
            }
        }

        #[test]
        fn a_job_that_is_not_final_can_be_cancelled_and_then_ends_cancelled(
            path in proptest::collection::vec(0..EVENTS.len(), 0..40), ending in 4..8_usize,
        ) {
            let mut state = State::Queued;
            for index in path {
                state = state.after(EVENTS[index]).unwrap_or(state);
            }
            if !state.is_final() {
                let asked = state.after(Event::Cancel).unwrap();
                let ended = if asked.holds_place() { asked.after(EVENTS[ending]).unwrap() } else { asked };
                prop_assert_eq!(ended, State::Cancelled);
            }
        }
    }
}
