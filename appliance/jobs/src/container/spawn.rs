//! A container as the agent has it: its keeper's process.
//!
//! Loading the program and what else every keeper does first takes as long as making the container, so one that has done it
//! waits for the next job ([`Spare`]).

use super::{
    Cgroup, KEEPER,
    keeper::{KeeperOrder, REPORT, Report},
};
use crate::runtime::End;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{self, Write},
    num::NonZeroU16,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
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

/// A keeper that waits for its job, or none.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    child: Child,
    order: ChildStdin,
    printed: (ChildStdout, ChildStderr),
}

impl Spare {
    /// Has a keeper wait, where none does. It ends with the thread that calls this.
    ///
    /// # Errors
    /// What the system said when no process can be had; the next job starts its own keeper then.
    pub fn refill(&self) -> io::Result<()> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.as_mut().is_some_and(|waiting| matches!(waiting.child.try_wait(), Ok(None))) {
            return Ok(());
        }
        let mut child = keeper().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let printed = child.stdout.take().zip(child.stderr.take());
        *waiting = child.stdin.take().zip(printed).map(|(order, printed)| Waiting { child, order, printed });
        Ok(())
    }

    /// Has a keeper, the waiting one if there is one, keep the container of the bundle in `directory`, and open `ports` for
    /// the agent ([`super::ports`]). `terminal` becomes the standard input and output of what runs inside.
    ///
    /// # Errors
    /// What the system said when no process can be had.
    pub fn spawn(
        &self,
        id: &str,
        directory: &Path,
        ports: &[NonZeroU16],
        terminal: Option<OwnedFd>,
    ) -> io::Result<Spawned> {
        drop(fs::remove_file(directory.join(REPORT)));
        let waiting = match terminal {
            // What is waiting has no terminal.
            Some(_) => None,
            None => self.0.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let order = KeeperOrder { id: id.to_owned(), directory: directory.to_owned(), ports: ports.to_vec() };
        if let Some(Waiting { mut child, order: mut to, printed }) = waiting {
            match to.write_all(&serde_json::to_vec(&order)?) {
                Ok(()) => return Ok(Spawned::new(id, directory, child, Some(printed))),
                // It was ended by something else while it waited.
                Err(_) => drop(child.kill().and_then(|()| child.wait())),
            }
        }
        let [stdin, stdout, stderr] = match terminal {
            Some(terminal) => [terminal.try_clone()?.into(), terminal.try_clone()?.into(), Stdio::from(terminal)],
            None => [Stdio::null(), Stdio::piped(), Stdio::piped()],
        };
        let mut command = keeper();
        command.arg(id).arg(directory).args(ports.iter().map(NonZeroU16::to_string));
        let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?;
        let printed = child.stdout.take().zip(child.stderr.take());
        Ok(Spawned::new(id, directory, child, printed))
    }
}

/// This same program as a keeper that waits.
fn keeper() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("gapd-job").arg(KEEPER).env_clear();
    command
}

impl Spawned {
    fn new(id: &str, directory: &Path, child: Child, printed: Option<(ChildStdout, ChildStderr)>) -> Self {
        let container = Container {
            cgroup: Cgroup::of(id),
            directory: directory.to_owned(),
            keeper: Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw)),
        };
        Self { container, child, printed }
    }
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
