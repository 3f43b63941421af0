//! The machine's GPUs: what `gap-gpu` asks of a machine, done for real.
//!
//! They are provisioned beside the API, which listens from the start: an eight-GPU board takes minutes.

use crate::{console, modules::Modules, root::Root};
use gap_gpu::{
    nvml::{Library, Management, ManagementError},
    provision::{Machine, Provisioned, provision},
};
use rustix::{
    fs::{Mode, OFlags, open},
    io::read,
};
use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often a program is looked after.
const POLL: Duration = Duration::from_millis(100);
/// Longest record of the kernel's log, in bytes (`LOG_LINE_MAX` and its head).
const RECORD: usize = 8 << 10;
/// Most of the kernel's log that is looked through, in bytes.
const MAX_LOG: usize = 16 << 20;

/// Provisions the GPUs of the running machine and tells the outcome on the console. Nothing is told where there are none.
pub fn bring_up(root: &Root, kernel_release: &str) -> Provisioned {
    let outcome = provision(root, &mut Running { root, kernel_release, modules: None }, None);
    for problem in &outcome.problems {
        console::say(format_args!("GPUs: {problem}"));
    }
    for gpu in &outcome.gpus {
        let model = gpu.model.as_deref().unwrap_or("unknown model");
        let reasons = gpu.health.reasons.join("; ");
        let health = if reasons.is_empty() { "healthy".to_owned() } else { reasons };
        console::say(format_args!("GPU {} ({model}): {health}", gpu.address));
    }
    outcome
}

/// The machine that this program runs on.
struct Running<'a> {
    root: &'a Root,
    kernel_release: &'a str,
    /// Read when the first module is asked for.
    modules: Option<Modules>,
}

impl Machine for Running<'_> {
    fn load_module(&mut self, name: &str) -> Result<(), String> {
        let modules = match self.modules.take() {
            Some(modules) => modules,
            None => Modules::read(self.root, self.kernel_release).map_err(|error| error.to_string())?,
        };
        self.modules.insert(modules).load_named(self.root, name)
    }

    fn run(&mut self, command: &[String], limit: Duration) -> Result<(), String> {
        let (program, arguments) = command.split_first().ok_or("no program is named")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let begun = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(status.to_string()),
                Err(error) => return Err(error.to_string()),
                Ok(None) if begun.elapsed() < limit => sleep(POLL),
                Ok(None) => {
                    // It is reaped whether or not the kernel could still end it.
                    drop(child.kill());
                    drop(child.wait());
                    return Err(format!("it was not done after {} seconds", limit.as_secs()));
                }
            }
        }
    }

    fn management(&mut self) -> Result<Box<dyn Management>, ManagementError> {
        Ok(Box::new(Library::load(self.root)?))
    }

    fn kernel_log(&mut self) -> String {
        kernel_log(self.root)
    }
}

/// The kernel's log as far as the kernel still has it; empty where it cannot be read.
pub fn kernel_log(root: &Root) -> String {
    let mut log = Vec::new();
    // Each read of /dev/kmsg gives one record; with none left it would wait.
    let Ok(file) = open(root.at("/dev/kmsg"), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) else {
        return String::new();
    };
    let mut record = [0; RECORD];
    loop {
        match read(&file, &mut record) {
            Ok(length) if length > 0 && log.len() < MAX_LOG => log.extend(record.iter().take(length)),
            // A record was overwritten while it was read; the next one is there.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::INTR) => {}
            _ => return String::from_utf8_lossy(&log).into_owned(),
        }
    }
}
