//! A container as the agent has it: its keeper's process.

use super::{
    Cgroup, KEEPER,
    keeper::{REPORT, Report},
};
use crate::runtime::End;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs, io,
    os::unix::process::CommandExt,
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

/// Starts a keeper for the bundle in `directory`. Returns the container, its process to wait for, and what it prints.
///
/// # Errors
/// What the system said when no process can be had.
pub fn spawn(id: &str, directory: &Path) -> io::Result<(Container, Child, ChildStdout, ChildStderr)> {
    drop(fs::remove_file(directory.join(REPORT)));
    let mut child = Command::new("/proc/self/exe")
        .arg0("gapd-job")
        .args([KEEPER, id])
        .arg(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).ok_or(io::ErrorKind::BrokenPipe)?;
    let container = Container {
        cgroup: Cgroup::of(id),
        directory: directory.to_owned(),
        keeper: Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw)),
    };
    Ok((container, child, stdout, stderr))
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
