//! A runtime of plain processes: a job's request is a shell script.

use gap_jobs::{CannotStart, Control, End, Job, JobId, Level, News, Runtime, Started};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Runs jobs as processes of their own process group.
#[derive(Default)]
pub struct Processes {
    /// Whether none may be started.
    pub is_held: AtomicBool,
    /// GPUs that failed.
    pub failed: Mutex<BTreeSet<String>>,
    /// The jobs that were put away.
    pub ended: Mutex<Vec<JobId>>,
}

struct Process {
    group: rustix::process::Pid,
    told: Mutex<Vec<News>>,
}

impl Runtime for Processes {
    fn start(&self, job: &Job) -> Result<Started, CannotStart> {
        if job.request == "unstartable" {
            return Err(CannotStart { reason: "there is no such image".into(), is_passing: false });
        }
        let mut child =
            Command::new("sh").args(["-c", &job.request]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let process = Arc::new(Process { group, told: Mutex::default() });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listener = Arc::clone(&process);
        let reader = thread::spawn(move || {
            for message in lines.map_while(Result::ok) {
                listener.told.lock().unwrap().push(News { level: Level::Info, message, data: None });
            }
        });
        let group_of_all = Arc::clone(&process);
        let wait = Box::new(move || {
            let status = child.wait().unwrap();
            // What it started may hold the pipe.
            group_of_all.kill();
            reader.join().unwrap();
            status.code().map(End::Exit).or(status.signal().map(End::Signal)).unwrap_or(End::Unknown)
        });
        Ok(Started { control: process, wait })
    }

    fn is_ready(&self) -> bool {
        !self.is_held.load(Ordering::Relaxed)
    }

    fn failed_slots(&self) -> BTreeSet<String> {
        self.failed.lock().unwrap().clone()
    }

    fn sweep(&self) {}

    fn ended(&self, job: &Job) {
        self.ended.lock().unwrap().push(job.id.clone());
    }
}

impl Control for Process {
    fn stop(&self) {
        let _ = rustix::process::kill_process(self.group, rustix::process::Signal::TERM);
    }

    fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.group, rustix::process::Signal::KILL);
    }

    fn news(&self) -> Vec<News> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}
