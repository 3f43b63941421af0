//! Room for processes: the kernel's own bounds are those of a small machine.
//!
//! A job may have some thousand processes and threads, and there may be some dozen jobs. Where all of them together reached
//! the kernel's bounds, neither the agent nor PID 1 could start anything any more; a bound on the jobs together
//! (`pids.max` of their cgroup, which the agent sets) lies below these.

use std::{fs, path::Path};

use crate::story::Story;

/// The kernel's largest number of a process on 64-bit machines (`PID_MAX_LIMIT`), and as many threads.
const MOST: u32 = 4 << 20;
/// What is raised: the bound on numbers, and that on threads, which the kernel derives from the memory.
const BOUNDS: [&str; 2] = ["proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"];

/// Raises the kernel's bounds on processes. Where it refuses, that is told: fewer jobs then run side by side.
pub fn make_room(root: &Path, story: &Story) {
    for bound in BOUNDS {
        let path = root.join(bound);
        let there = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if there.is_some_and(|there| there >= MOST) {
            continue;
        }
        if let Err(error) = fs::write(&path, MOST.to_string()) {
            story.tell(format_args!("/{bound} is not raised to {MOST}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Consoles;
    use std::sync::Arc;

    #[test]
    fn bounds_are_raised_and_never_lowered() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        let [pids, threads] = BOUNDS.map(|bound| root.path().join(bound));
        fs::write(&pids, "32768\n").unwrap();
        fs::write(&threads, "8000000\n").unwrap();
        make_room(root.path(), &Story::new(Arc::new(Consoles::open_from(root.path()))));
        assert_eq!(fs::read_to_string(pids).unwrap(), "4194304");
        assert_eq!(fs::read_to_string(threads).unwrap(), "8000000\n");
    }
}
