//! A job's cgroup (version 2): ending all of it, and whether it ran out of memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where the kernel shows cgroups.
const MOUNT: &str = "/sys/fs/cgroup";
/// The group above all jobs.
const PARENT: &str = "gap";
/// The kernel's bounds on processes and threads: of all numbers there are, and of all that run at once.
const BOUNDS: [&str; 2] = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
/// What jobs together may have of the smaller one; the rest is the agent's and PID 1's, which must always get a process.
const SHARE: (u32, u32) = (3, 4);
/// How long the kernel may take to end what was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bounds the processes of all jobs together, below what the kernel has for the whole machine.
///
/// # Errors
/// What the kernel answered when there is no such bound.
pub fn bound_processes() -> io::Result<()> {
    bound_processes_below(Path::new("/"))
}

fn bound_processes_below(root: &Path) -> io::Result<()> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let mut smallest = u32::MAX;
    for bound in BOUNDS {
        let text = fs::read_to_string(at(bound))?;
        smallest = smallest.min(text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?);
    }
    let (part, of) = SHARE;
    fs::write(at(MOUNT).join("cgroup.subtree_control"), "+pids")?;
    let parent = at(MOUNT).join(PARENT);
    fs::create_dir_all(&parent)?;
    fs::write(parent.join("pids.max"), (smallest / of * part).to_string())
}

/// The cgroup of one job.
#[derive(Debug, Clone)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The cgroup of the job of this name.
    pub fn of(id: &str) -> Self {
        Self(Path::new(MOUNT).join(PARENT).join(id))
    }

    /// Its path as a runtime configuration has it.
    pub fn path_of(id: &str) -> PathBuf {
        Path::new("/").join(PARENT).join(id)
    }

    /// All cgroups of jobs that there are.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(Path::new(MOUNT).join(PARENT)) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).map(Self).collect()
    }

    /// Ends every process in it at once.
    ///
    /// # Errors
    /// What the kernel answered; not found when the group is gone.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Whether the kernel ended something in it for want of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        fs::read_to_string(self.0.join("memory.events")).is_ok_and(|text| oom_kills(&text) > 0)
    }

    /// Ends what is in it and removes it.
    ///
    /// # Errors
    /// What the kernel answered when it does not go away.
    pub fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            // What is gone cannot be killed; then removing says so too.
            drop(self.kill());
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn oom_kills(events: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    events.lines().find_map(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_together_leave_room_below_both_bounds_of_the_kernel() {
        for (pids, threads, expected) in [("4194304\n", "4194304\n", "3145728"), ("32768\n", "15000\n", "11250")] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
            fs::create_dir_all(root.path().join("sys/fs/cgroup")).unwrap();
            fs::write(root.path().join("proc/sys/kernel/pid_max"), pids).unwrap();
            assert!(bound_processes_below(root.path()).is_err(), "one of them is not known");
            fs::write(root.path().join("proc/sys/kernel/threads-max"), threads).unwrap();
            bound_processes_below(root.path()).unwrap();
            let group = root.path().join("sys/fs/cgroup");
            assert_eq!(fs::read_to_string(group.join("cgroup.subtree_control")).unwrap(), "+pids");
            assert_eq!(fs::read_to_string(group.join("gap/pids.max")).unwrap(), expected);
        }
    }

    #[test]
    fn kills_for_want_of_memory_are_counted_and_nothing_else_is() {
        assert_eq!(oom_kills("low 0\nhigh 3\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("oom 1\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
