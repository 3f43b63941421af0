//! Life after the boot: keep the agent running, take in orphans, wait for the end.

use gap_handover::control::EXIT_NOT_TRUSTED;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};
use std::{
    fmt,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError},
    time::Duration,
};

use crate::{
    Stop, agent, clock,
    events::{End, Event, Events},
    handover,
    site::Site,
    story::Story,
};

/// An agent that ran this long before it ended is started again without delay growing.
const SETTLED: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Time between two looks whether a late site configuration has come.
const LOOK: Duration = Duration::from_millis(200);
/// Longest sleep where nothing is due; any event ends it.
const IDLE: Duration = Duration::from_secs(3600);

/// Delays between restarts: they double while the agent keeps ending early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(FIRST_DELAY)
    }
}

impl BackOff {
    /// The delay after a run of this length.
    pub fn after(&mut self, run: Duration) -> Duration {
        if run >= SETTLED {
            self.0 = FIRST_DELAY;
        }
        let delay = self.0;
        self.0 = (delay * 2).min(LONGEST_DELAY);
        delay
    }
}

/// What is printed when the agent refuses the release; its own lines, just before, say why.
const REFUSAL: &str = "the agent verified the release by itself and refuses it";

/// The agent, running or waiting to be started.
enum State {
    Running {
        pid: Pid,
        since: Duration,
        /// Whether it was asked to end, to be started again at once.
        renewed: bool,
    },
    Waiting {
        until: Duration,
    },
}

/// Starts the agent and keeps it running until the machine shall stop. A site configuration that comes late is handed
/// over to it by a new start.
///
/// # Errors
/// [`Stop::NotTrusted`] when the agent, which verifies the release once more by itself, does not trust it.
pub fn run(events: &mut Events, story: &Story, image: &Path, site: Site) -> Result<End, Stop> {
    let mut late = match site {
        Site::Open(watch) => watch.go_on(story).map_err(|stop| story.tell(stop)).ok(),
        Site::Settled(_) => None,
    };
    let mut back_off = BackOff::default();
    let mut state = State::Waiting { until: Duration::ZERO };
    loop {
        let now = clock::since_boot();
        if let State::Waiting { until } = state
            && until <= now
        {
            state = start(story, &mut back_off);
        }
        if let Some(text) = late_site(&mut late) {
            renew(&mut state, image, &text, story);
        }
        let timeout = match state {
            State::Running { .. } => IDLE,
            State::Waiting { until } => until.saturating_sub(clock::since_boot()),
        };
        match events.next(if late.is_some() { timeout.min(LOOK) } else { timeout }) {
            Event::End(end) => return Ok(end),
            Event::Timeout => {}
            Event::Child => {
                for (pid, status) in reap() {
                    if let State::Running { pid: agent, since, renewed } = state
                        && pid == agent
                    {
                        if is_refusal(status) {
                            return Err(Stop::NotTrusted(REFUSAL.into()));
                        }
                        let ran = clock::since_boot().saturating_sub(since);
                        let delay = if renewed { Duration::ZERO } else { back_off.after(ran) };
                        story.tell(format_args!(
                            "the agent {}; starting it again in {} s",
                            Ended(status),
                            delay.as_secs()
                        ));
                        state = State::Waiting { until: clock::since_boot() + delay };
                    }
                }
            }
        }
    }
}

/// The text of a configuration that came late, once. Nothing more is expected after it, nor when the search is over.
fn late_site(late: &mut Option<Receiver<String>>) -> Option<String> {
    match late.as_ref()?.try_recv() {
        Err(TryRecvError::Empty) => None,
        ended => {
            *late = None;
            ended.ok()
        }
    }
}

/// Lays the configuration where the agent reads it, and asks a running agent to end.
fn renew(state: &mut State, image: &Path, text: &str, story: &Story) {
    if let Err(stop) = handover::write_site(image, text) {
        story.announce(format_args!("SITE CONFIGURATION IGNORED: {stop}; defaults apply"));
        return;
    }
    if let State::Running { pid, renewed, .. } = state {
        *renewed = true;
        if let Err(error) = kill_process(*pid, Signal::TERM) {
            story.tell(format_args!("the agent cannot be asked to end: {error}"));
        }
    }
}

/// Waits for the power button or Ctrl-Alt-Del and does nothing else.
pub fn halted(events: &mut Events) -> End {
    loop {
        match events.next(IDLE) {
            Event::End(end) => return end,
            Event::Child => drop(reap()),
            Event::Timeout => {}
        }
    }
}

/// Takes in every child that has ended, orphans of others among them.
pub fn reap() -> Vec<(Pid, WaitStatus)> {
    let mut ended = Vec::new();
    while let Ok(Some(child)) = wait(WaitOptions::NOHANG) {
        ended.push(child);
    }
    ended
}

/// Takes in every child that has ended; says whether none is left. As orphans come to PID 1, no process is left then.
pub fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Whether this is the end of an agent that must not be started again.
fn is_refusal(status: WaitStatus) -> bool {
    status.exit_status() == Some(EXIT_NOT_TRUSTED.into())
}

fn start(story: &Story, back_off: &mut BackOff) -> State {
    match agent::start(story.consoles()) {
        Ok(pid) => {
            story.tell(format_args!("agent {} started", agent::AGENT));
            State::Running { pid, since: clock::since_boot(), renewed: false }
        }
        Err(error) => {
            let delay = back_off.after(Duration::ZERO);
            story.tell(format_args!("the agent could not be started: {error}; trying again in {} s", delay.as_secs()));
            State::Waiting { until: clock::since_boot() + delay }
        }
    }
}

/// How a process ended, in words.
struct Ended(WaitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.exit_status(), self.0.terminating_signal()) {
            (Some(status), _) => write!(f, "ended with status {status}"),
            (None, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (None, None) => write!(f, "ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let mut back_off = BackOff::default();
        let delays: Vec<u64> = (0..7).map(|_| back_off.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn an_agent_that_ran_for_a_while_starts_from_the_first_delay() {
        let mut back_off = BackOff::default();
        for _ in 0..5 {
            back_off.after(Duration::ZERO);
        }
        assert_eq!(back_off.after(Duration::from_secs(61)), FIRST_DELAY);
        assert_eq!(back_off.after(Duration::ZERO), FIRST_DELAY * 2);
    }
}
