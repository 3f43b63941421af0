//! The machine's GPUs: what `gap-gpu` asks of a machine, done for real.
//!
//! They are provisioned beside the API, which listens from the start: an eight-GPU board takes minutes. A driver that hangs
//! takes the GPUs away, and nothing else.

mod board;
mod kernel_log;
mod library;
mod program;

pub use board::{Board, follow};

use crate::{console, modules::Modules, root::Root};
use gap_gpu::{
    nvml::{Library, Management, ManagementError},
    provision::{Machine, Provisioned, deadline, given_up, provision},
};
use gap_handover::site::Cut;
use kernel_log::KernelLog;
use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Provisions the GPUs of the running machine, cut as the site wants them, and tells the outcome on the console. Nothing is
/// told where there are none. Comes back in any case: after a time that grows with the number of GPUs the machine goes on
/// with its CPUs.
pub fn bring_up(root: &Root, kernel_release: String, cuts: Vec<Cut>) -> Provisioned {
    let own = root.clone();
    let act =
        move || provision(&own, &mut Running { root: &own, kernel_release: &kernel_release, modules: None }, &cuts);
    let outcome = within(deadline(root), act).unwrap_or_else(|problem| given_up(root, problem));
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

/// What `act` gives, or why it gave nothing within `limit`. One that hangs goes on hanging, and nobody waits for it.
fn within<T: Send + 'static>(limit: Duration, act: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, outcome) = mpsc::channel();
    let spawned = thread::Builder::new().name("gpus".into()).spawn(move || drop(sender.send(act())));
    spawned.map_err(|error| format!("no thread can be had to provision them: {error}; no GPU is used"))?;
    outcome.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!(
            "they were not provisioned after {} seconds, and no GPU is used: the driver seems to hang; restart the machine, \
             and look at its power and cooling if that comes again",
            limit.as_secs()
        ),
        RecvTimeoutError::Disconnected => {
            "provisioning them ended by an error of the agent, and no GPU is used; restart the machine, and report it if \
             that comes again"
                .to_owned()
        }
    })
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
        program::run(command, limit)
    }

    fn management(&mut self) -> Result<Box<dyn Management>, ManagementError> {
        Ok(Box::new(Library::load(self.root)?))
    }

    fn kernel_log(&mut self) -> String {
        KernelLog::default().news(self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_or_breaks_down_is_given_up_and_told() {
        let (go_on, wait) = mpsc::channel::<()>();
        let hangs = within(Duration::from_millis(50), move || wait.recv().unwrap_or_default()).unwrap_err();
        assert!(hangs.starts_with("they were not provisioned after 0 seconds"), "{hangs}");
        drop(go_on);
        let breaks = within(Duration::from_secs(60), || -> () { panic!("on purpose") }).unwrap_err();
        assert!(breaks.starts_with("provisioning them ended by an error"), "{breaks}");
        assert_eq!(within(Duration::from_secs(60), || 7), Ok(7));
    }
}
