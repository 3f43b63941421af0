//! A container as the agent has it: its keeper's process.

use super::{
    Cgroup, KEEPER,
    keeper::{REPORT, Report},
};
use crate::runtime::End;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs, io,
    num::NonZeroU16,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// Longest report that is read, in bytes.
const MAX_REPORT: usize = 64 << 10;

/// A running container.
#[derive(Debug)]
pub struct Container {
    cgroup: Cgroup,
    directory: PathBuf,
    /// The keeper, while it runs: a process id is another's once it was waited for.
    keeper: Mutex<Option<Pid>>,
}

/// A container that was started.
#[derive(Debug)]
pub struct Spawned {
    /// What can be done to it.
    pub container: Container,
    /// Its keeper, to wait for.
    pub child: Child,
    /// What it prints, and what it complains of; nothing where a terminal takes both.
    pub printed: Option<(ChildStdout, ChildStderr)>,
}

/// Starts a keeper for the bundle in `directory`, which opens `ports` for the agent ([`super::ports`]). `terminal` becomes the
/// standard input and output of what runs inside.
///
/// # Errors
/// What the system said when no process can be had.
pub fn spawn(id: &str, directory: &Path, ports: &[NonZeroU16], terminal: Option<OwnedFd>) -> io::Result<Spawned> {
    drop(fs::remove_file(directory.join(REPORT)));
    let [stdin, stdout, stderr] = match terminal {
        Some(terminal) => [terminal.try_clone()?.into(), terminal.try_clone()?.into(), Stdio::from(terminal)],
        None => [Stdio::null(), Stdio::piped(), Stdio::piped()],
    };
    let mut child = Command::new("/proc/self/exe")
        .arg0("gapd-job")
        .args([KEEPER, id])
        .arg(directory)
        .args(ports.iter().map(NonZeroU16::to_string))
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()?;
    let printed = child.stdout.take().zip(child.stderr.take());
    let container = Container {
        cgroup: Cgroup::of(id),
        directory: directory.to_owned(),
        keeper: Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw)),
    };
    Ok(Spawned { container, child, printed })
}

impl Container {
    /// Tells the program to end.
    pub fn stop(&self) {
        if let Some(keeper) = *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process(keeper, Signal::TERM);
        }
    }

    /// Ends everything in the container at once.
    pub fn kill(&self) {
        if self.cgroup.kill().is_err()
            && let Some(keeper) = *self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            // There is no group yet, or none any more.
            let _ = kill_process(keeper, Signal::KILL);
        }
    }

    /// Waits for the end of the keeper and reads its report.
    pub fn wait(&self, child: &mut Child) -> End {
        let waited = child.wait();
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let report = fs::read(self.directory.join(REPORT)).ok().filter(|bytes| bytes.len() <= MAX_REPORT);
        let report = report.and_then(|bytes| serde_json::from_slice::<Report>(&bytes).ok());
        if report.is_none() || waited.is_err() {
            // The keeper was ended itself, and may have left the container behind.
            drop(self.cgroup.remove());
        }
        report.map_or(End::Unknown, |report| report.end())
    }
}
