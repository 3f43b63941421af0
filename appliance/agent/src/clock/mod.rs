//! The machine's clock: whether it is known to be right, what sets it, and what is done about jobs while it is not.
//!
//! It is never before the time when the release was made: PID 1 sees to that. Beyond it the clock on the board is
//! believed, unless the site says otherwise; and where the site names time servers, and only there, those are asked.

mod sntp;

use gap_handover::{
    boot_report,
    site::{Rtc, Time, WrongClock},
};
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Serialize;
use sntp::Sample;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{task::JoinSet, time::sleep};

/// Where time servers listen (RFC 5905).
const NTP_PORT: u16 = 123;
/// A clock that is off by less is left alone; NTP's own threshold for a step (RFC 5905, STEPT).
const STEP: Duration = Duration::from_millis(128);
/// How far servers may differ and still tell the same time.
const AGREEMENT_US: u64 = 1_000_000;
/// First wait after a round without an answer; doubled after each one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait after a round without an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// Wait after a round that told the time.
const SETTLED_WAIT: Duration = Duration::from_secs(1024);
/// Rounds without an answer after which the console says so.
const ROUNDS_UNTIL_COMPLAINT: u32 = 4;

/// What the API tells of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockState {
    /// `right` or `wrong`, as far as anybody here can know.
    pub status: &'static str,
    /// What it goes by: `rtc`, the clock on the board; `release`, the time when the release was made; `server`.
    pub source: &'static str,
    /// The time servers that the site names.
    pub servers: Vec<Ipv4Addr>,
    /// How far it was off when servers last told the time, in milliseconds; positive when it was behind.
    pub offset_ms: Option<i64>,
    /// When servers last told the time, in seconds since 1970.
    pub checked_at: Option<i64>,
    /// Why servers do not tell it now.
    pub problem: Option<String>,
    /// What the site wants done about jobs while it is wrong: `continue`, `wait` or `refuse_jobs`.
    pub wrong_clock: WrongClock,
}

/// The clock's state, shared with the API and with those who start jobs.
#[derive(Debug)]
pub struct Board(Mutex<ClockState>);

impl Board {
    /// The clock at the start: right if the site believes it and it was not behind the release.
    pub fn new(time: &Time, found: boot_report::Clock) -> Self {
        let is_right = time.rtc == Rtc::Trusted && !found.was_behind;
        Self(Mutex::new(ClockState {
            status: if is_right { "right" } else { "wrong" },
            source: if found.was_behind { "release" } else { "rtc" },
            servers: time.servers.clone(),
            offset_ms: None,
            checked_at: None,
            problem: None,
            wrong_clock: time.wrong_clock,
        }))
    }

    /// A copy of what is known now.
    pub fn state(&self) -> ClockState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is right, as far as anybody here can know.
    pub fn is_right(&self) -> bool {
        self.state().status == "right"
    }

    /// Whether jobs that were taken have to wait for it.
    pub fn holds_jobs(&self) -> bool {
        self.state().wrong_clock == WrongClock::Wait && !self.is_right()
    }

    /// Whether no job may be taken because of it.
    pub fn refuses_jobs(&self) -> bool {
        self.state().wrong_clock == WrongClock::RefuseJobs && !self.is_right()
    }

    fn change(&self, change: impl FnOnce(&mut ClockState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The addresses of the time servers that a site names.
pub fn addresses(time: &Time) -> Vec<SocketAddr> {
    time.servers.iter().map(|server| SocketAddrV4::new(*server, NTP_PORT).into()).collect()
}

/// Asks the servers, again and again until it is dropped, and keeps the clock by them. Returns at once where there are
/// none. Nothing that is before `floor` (seconds since 1970), when the release was made, is believed. `set` moves the
/// clock by microseconds; `say` is told of that, and of servers that do not answer.
pub async fn keep(
    servers: Vec<SocketAddr>,
    floor: u64,
    board: &Board,
    set: impl Fn(i64) -> io::Result<()>,
    say: impl Fn(String),
) {
    let (mut wait, mut rounds) = (FIRST_WAIT, 0_u32);
    while !servers.is_empty() {
        match round(&servers, floor).await.and_then(|offset| apply(offset, &set, &say)) {
            Ok(offset) => {
                note(board, offset);
                (wait, rounds) = (FIRST_WAIT, 0);
                sleep(SETTLED_WAIT).await;
            }
            Err(problem) => {
                rounds = rounds.saturating_add(1);
                if rounds == ROUNDS_UNTIL_COMPLAINT {
                    say(format!("{problem}; still asking"));
                }
                board.change(|state| state.problem = Some(problem));
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Asks all servers once. Returns by how many microseconds the clock is behind what they agree on.
async fn round(servers: &[SocketAddr], floor: u64) -> Result<i64, String> {
    let mut asking = JoinSet::new();
    for server in servers.iter().copied() {
        asking.spawn(async move { (server, sntp::ask(server, floor).await) });
    }
    let (mut samples, mut problems) = (Vec::new(), Vec::new());
    for (server, answer) in asking.join_all().await {
        match answer {
            Ok(sample) => samples.push(sample),
            Err(error) => problems.push(format!("{}: {error}", server.ip())),
        }
    }
    problems.sort();
    agreed(samples).ok_or_else(|| match problems.is_empty() {
        true => "the time servers tell different times".to_owned(),
        false => format!("no time server tells the time ({})", problems.join("; ")),
    })
}

/// What more than half of those that answered tell, within [`AGREEMENT_US`] of each other.
fn agreed(mut samples: Vec<Sample>) -> Option<i64> {
    samples.sort_by_key(|sample| sample.offset_us);
    let middle = samples.get(samples.len() / 2)?.offset_us;
    let near: Vec<&Sample> =
        samples.iter().filter(|sample| sample.offset_us.abs_diff(middle) <= AGREEMENT_US).collect();
    // Of those that agree, the one whose packets travelled shortest is the most exact.
    let best = near.iter().min_by_key(|sample| sample.round_trip_us)?;
    (near.len() * 2 > samples.len()).then_some(best.offset_us)
}

fn apply(offset: i64, set: impl Fn(i64) -> io::Result<()>, say: impl Fn(String)) -> Result<i64, String> {
    if u128::from(offset.unsigned_abs()) >= STEP.as_micros() {
        set(offset).map_err(|error| format!("the clock cannot be set: {error}"))?;
        let (seconds, direction) = (offset.unsigned_abs() / 1_000_000, if offset > 0 { "forward" } else { "back" });
        let millis = offset.unsigned_abs() / 1_000 % 1_000;
        say(format!("clock set {direction} by {seconds}.{millis:03} s, as the site's time servers tell"));
    }
    Ok(offset)
}

fn note(board: &Board, offset: i64) {
    board.change(|state| {
        state.status = "right";
        state.source = "server";
        state.offset_ms = Some(offset / 1_000);
        state.checked_at = Some(now_us() / 1_000_000);
        state.problem = None;
    });
}

/// Moves the machine's clock. The one on the board is left as it is.
///
/// # Errors
/// What the kernel answered; nobody but root may do it.
pub fn step(offset_us: i64) -> io::Result<()> {
    let time = now_us().checked_add(offset_us).filter(|time| *time > 0).ok_or(io::ErrorKind::InvalidInput)?;
    let time = Timespec { tv_sec: time / 1_000_000, tv_nsec: time % 1_000_000 * 1_000 };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Microseconds since 1970 by the machine's clock.
fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sntp::tests::Server;
    use std::sync::Mutex;

    fn time(rtc: Rtc, wrong_clock: WrongClock) -> Time {
        Time { rtc, servers: vec![Ipv4Addr::new(192, 0, 2, 1)], wrong_clock }
    }

    const SOUND: boot_report::Clock = boot_report::Clock { built: 1_700_000_000, was_behind: false };

    fn sample(offset_us: i64, round_trip_us: i64) -> Sample {
        Sample { offset_us, round_trip_us }
    }

    #[test]
    fn a_clock_is_wrong_when_it_was_behind_the_release_or_the_site_does_not_believe_it() {
        let behind = boot_report::Clock { was_behind: true, ..SOUND };
        for (rtc, found, is_right) in
            [(Rtc::Trusted, SOUND, true), (Rtc::Trusted, behind, false), (Rtc::Untrusted, SOUND, false)]
        {
            for (policy, holds, refuses) in [
                (WrongClock::Continue, false, false),
                (WrongClock::Wait, !is_right, false),
                (WrongClock::RefuseJobs, false, !is_right),
            ] {
                let board = Board::new(&time(rtc, policy), found);
                assert_eq!((board.is_right(), board.holds_jobs(), board.refuses_jobs()), (is_right, holds, refuses));
            }
        }
    }

    #[test]
    fn most_of_those_that_answer_have_to_agree_and_one_that_lies_is_outvoted() {
        assert_eq!(agreed(Vec::new()), None);
        assert_eq!(agreed(vec![sample(5, 1)]), Some(5));
        assert_eq!(agreed(vec![sample(0, 1), sample(9_000_000, 1)]), None);
        assert_eq!(agreed(vec![sample(100, 9), sample(-90_000_000, 1), sample(300, 2)]), Some(300));
        assert_eq!(agreed(vec![sample(0, 1), sample(5_000_000, 1), sample(-5_000_000, 1)]), None);
    }

    #[tokio::test]
    async fn the_clock_is_set_by_what_the_server_tells_and_then_counts_as_right() {
        let server = Server::start(|answer| answer, 90).await;
        let board = Board::new(&time(Rtc::Untrusted, WrongClock::Wait), SOUND);
        let (moved, said) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let set = |offset| {
            moved.lock().unwrap().push(offset);
            Ok(())
        };
        let keeping = keep(vec![server.address], SOUND.built, &board, set, |line| said.lock().unwrap().push(line));
        let settled = async {
            while !board.is_right() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! { () = keeping => {}, () = settled => {} }
        let moved = moved.into_inner().unwrap();
        assert!(matches!(moved.as_slice(), [offset] if offset.abs_diff(90_000_000) < 1_000_000), "{moved:?}");
        assert!(said.into_inner().unwrap()[0].starts_with("clock set forward by "));
        let state = board.state();
        assert_eq!((state.status, state.source, board.holds_jobs()), ("right", "server", false));
    }

    #[tokio::test]
    async fn without_servers_nothing_is_asked_and_a_clock_that_is_right_is_left_alone() {
        let board = Board::new(&Time::default(), SOUND);
        keep(addresses(&Time::default()), 0, &board, |_| panic!("set"), |_| panic!("said")).await;
        assert!(apply(100_000, |_| panic!("set"), |_| panic!("said")).is_ok());
    }

    #[tokio::test]
    async fn a_server_that_tells_a_time_before_the_release_is_not_believed() {
        let server = Server::start(|answer| answer, 0).await;
        let floor = u64::try_from(now_us() / 1_000_000).unwrap() + 3600;
        let problem = round(&[server.address], floor).await.unwrap_err();
        assert!(problem.contains("before this release was made"), "{problem}");
    }
}
