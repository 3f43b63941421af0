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
use nix::{
    sched::{CloneFlags, unshare},
    unistd::dup2,
};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use seccompiler::BpfProgram;
use serde::{Deserialize, Serialize};
use signal_hook::{
    consts::{SIGCHLD, SIGTERM},
    iterator::Signals,
};
use std::{
    fs,
    io::{self, Read},
    num::NonZeroU16,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
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
/// Longest order that is read, in bytes.
const MAX_ORDER: u64 = 64 << 10;
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

/// What a keeper that waited is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeeperOrder {
    /// The job.
    pub id: String,
    /// Where its bundle lies.
    pub directory: PathBuf,
    /// What to open on its loopback.
    pub ports: Vec<NonZeroU16>,
}

/// Keeps the container of the job `id` whose bundle lies in `directory`, until it has ended; leaves a report there.
/// What the container prints goes where this process prints. `ports` are opened on the job's loopback and handed to the
/// agent. The process must have one thread.
///
/// # Errors
/// What the system said when the report cannot be written.
pub fn run(id: &str, directory: &Path, ports: &[NonZeroU16]) -> io::Result<()> {
    let _lock = lock(Path::new(LOCK), FlockOperation::LockShared)?;
    report(prepare(), &KeeperOrder { id: id.to_owned(), directory: directory.to_owned(), ports: ports.to_vec() })
}

/// Gets ready for a job that is not known yet, waits for it on standard input, and then does as [`run`]. Returns when the
/// agent ends, or lets it go, without one.
///
/// # Errors
/// As for [`run`], and when what comes is no order.
pub fn wait() -> io::Result<()> {
    let _lock = lock(Path::new(LOCK), FlockOperation::LockShared)?;
    let prepared = prepare();
    let mut order = Vec::new();
    io::stdin().lock().take(MAX_ORDER).read_to_end(&mut order)?;
    if order.is_empty() {
        return Ok(());
    }
    dup2(fs::File::open("/dev/null")?.as_raw_fd(), libc::STDIN_FILENO)?;
    report(prepared, &serde_json::from_slice(&order)?)
}

/// Keeps a container and leaves a report of its end.
fn report(prepared: Result<Vec<BpfProgram>, KeeperError>, order: &KeeperOrder) -> io::Result<()> {
    let KeeperOrder { id, directory, ports } = order;
    let report = match prepared.and_then(|filters| keep(filters, id, directory, ports)) {
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

/// What is the same for every job: the network namespace with its loopback, and the filters.
fn prepare() -> Result<Vec<BpfProgram>, KeeperError> {
    // Without its agent nobody would hear of the end.
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    LinkClient::new(create_network_client())?.set_up(LOOPBACK)?;
    Ok(seccomp::filters()?)
}

fn keep(filters: Vec<BpfProgram>, id: &str, directory: &Path, ports: &[NonZeroU16]) -> Result<i32, KeeperError> {
    ports::hand_over(directory, ports).map_err(KeeperError::Ports)?;
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
