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
/// How long the kernel may take to end what was killed.
const PATIENCE: Duration = Duration::from_secs(5);

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
    fn kills_for_want_of_memory_are_counted_and_nothing_else_is() {
        assert_eq!(oom_kills("low 0\nhigh 3\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("oom 1\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
