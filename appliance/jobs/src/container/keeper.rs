//! The process that keeps a container: builds it, passes its end on, and cleans up.

use super::{
    Cgroup,
    init::{self, Init, SIGNAL_BASE},
    ports, seccomp,
};
use crate::runtime::End;
use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    network::{NetworkError, link::LinkClient, wrapper::create_network_client},
    syscall::syscall::SyscallType,
};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use serde::{Deserialize, Serialize};
use signal_hook::{
    consts::{SIGCHLD, SIGTERM},
    iterator::Signals,
};
use std::{
    fs, io,
    num::NonZeroU16,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Where libcontainer keeps its state.
const STATE: &str = "/run/gap/containers";
/// Name of the report of a keeper in a job's run directory.
pub(super) const REPORT: &str = "end.json";
/// Held by every keeper as long as it lives.
const LOCK: &str = "/run/gap/keepers.lock";
/// Longest that keepers of an agent that was killed may take to end, once what they keep has ended.
const LEAVE: Duration = Duration::from_secs(10);
/// Index of the loopback interface in a new network namespace.
const LOOPBACK: u32 = 1;

/// How a container ended, as its keeper tells the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The program ended.
    Ended {
        /// Its exit status; [`SIGNAL_BASE`] and a signal's number when that ended it.
        status: i32,
        /// Whether the kernel ended something for want of memory.
        out_of_memory: bool,
    },
    /// The container could not be made.
    NotStarted {
        /// Why.
        reason: String,
    },
}

impl Report {
    /// What it means to the dispatcher.
    pub const fn end(&self) -> End {
        match self {
            Self::Ended { out_of_memory: true, status } if *status != 0 => End::OutOfMemory,
            Self::Ended { status, .. } if *status > SIGNAL_BASE => End::Signal(*status - SIGNAL_BASE),
            Self::Ended { status, .. } => End::Exit(*status),
            Self::NotStarted { .. } => End::Unknown,
        }
    }
}

/// Why a container is not made.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("taking a network namespace: {0}")]
    Namespace(#[from] nix::Error),
    #[error("bringing up the loopback: {0}")]
    Loopback(#[from] NetworkError),
    #[error("opening the ports of its endpoints: {0}")]
    Ports(io::Error),
    #[error("making the system call filter: {0}")]
    Filter(#[from] seccompiler::Error),
    #[error("making the container: {0}")]
    Container(#[from] LibcontainerError),
    #[error("keeping the container: {0}")]
    System(#[from] io::Error),
    #[error("the container has no process")]
    NoProcess,
}

/// Keeps the container of the job `id` whose bundle lies in `directory`, until it has ended; leaves a report there.
/// What the container prints goes where this process prints. `ports` are opened on the job's loopback and handed to the
/// agent. The process must have one thread.
///
/// # Errors
/// What the system said when the report cannot be written.
pub fn run(id: &str, directory: &Path, ports: &[NonZeroU16]) -> io::Result<()> {
    let _lock = lock(Path::new(LOCK), FlockOperation::LockShared)?;
    let report = match keep(id, directory, ports) {
        Ok(status) => Report::Ended { status, out_of_memory: Cgroup::of(id).ran_out_of_memory() },
        Err(error) => {
            let reason = sources(&error);
            eprintln!("the container could not be started: {reason}");
            Report::NotStarted { reason }
        }
    };
    drop(Cgroup::of(id).remove());
    drop(fs::remove_dir_all(Path::new(STATE).join(id)));
    let temporary = directory.join("end.json.new");
    fs::write(&temporary, serde_json::to_vec(&report)?)?;
    fs::rename(temporary, directory.join(REPORT))
}

/// Waits until no keeper of an earlier agent lives, whose containers have been ended: one that cleans up after its container
/// would take that of the same job's next run for its own.
///
/// # Errors
/// What the system said, or that one does not end.
pub fn wait_for_all() -> io::Result<()> {
    let until = Instant::now() + LEAVE;
    loop {
        match lock(Path::new(LOCK), FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            other => return other.map(drop),
        }
    }
}

fn lock(path: &Path, operation: FlockOperation) -> io::Result<fs::File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
    flock(&file, operation)?;
    Ok(file)
}

fn keep(id: &str, directory: &Path, ports: &[NonZeroU16]) -> Result<i32, KeeperError> {
    // Without its agent nobody would hear of the end.
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    LinkClient::new(create_network_client())?.set_up(LOOPBACK)?;
    ports::hand_over(directory, ports).map_err(KeeperError::Ports)?;
    let filters = seccomp::filters()?;
    fs::create_dir_all(STATE)?;
    // What an agent left that was killed is not in the way of the next one.
    drop(fs::remove_dir_all(Path::new(STATE).join(id)));
    let mut container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(Init { filters })
        .with_root_path(STATE)?
        .validate_id()?
        .as_init(directory)
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw())).ok_or(KeeperError::NoProcess)?;
    let signals = Signals::new([SIGTERM, SIGCHLD])?;
    container.start()?;
    attend(pid, signals)
}

/// Passes the word to end on to the container, and returns its exit status.
fn attend(pid: Pid, mut signals: Signals) -> Result<i32, KeeperError> {
    loop {
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).map_err(io::Error::from)?
            && let Some(code) = init::code_of(status)
        {
            return Ok(code);
        }
        for signal in signals.wait() {
            if signal == SIGTERM {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

/// An error and all that it goes back to.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_a_signal_from_an_exit_and_want_of_memory_from_both() {
        let ended = |status, out_of_memory| Report::Ended { status, out_of_memory }.end();
        assert_eq!(ended(0, true), End::Exit(0));
        assert_eq!(ended(3, false), End::Exit(3));
        assert_eq!(ended(137, false), End::Signal(9));
        assert_eq!(ended(137, true), End::OutOfMemory);
    }
}
