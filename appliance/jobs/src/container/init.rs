//! The first process inside of a container: puts on the filter, starts the program, passes signals on, takes in orphans.
//!
//! The program itself is not the first process, because the kernel gives that one no signal which it has no handler for:
//! a program that relies on `SIGTERM` ending it would never end.

use super::terminal;
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use seccompiler::BpfProgram;
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};
use std::{io, process::Command};

/// Exit status when the program cannot be started, as shells have it.
const NOT_STARTED: i32 = 127;
/// Added to a signal's number for the exit status of a program that it ended, as shells have it.
pub const SIGNAL_BASE: i32 = 128;

/// Runs a job's program under these filters.
#[derive(Clone)]
pub struct Init {
    /// System call filters, in the order in which they are put on.
    pub filters: Vec<BpfProgram>,
}

impl Executor for Init {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
        let (program, rest) = args.split_first().ok_or(ExecutorError::InvalidArg)?;
        let has_terminal = terminal::take_control()
            .map_err(|error| ExecutorError::Other(format!("taking control of the terminal: {error}")))?;
        // What is typed reaches the program by the terminal itself: passed on as well, it would arrive twice.
        let by_terminal = if has_terminal { &[][..] } else { &[SIGINT, SIGHUP] };
        let signals = Signals::new([SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD].iter().chain(by_terminal));
        let signals = signals.map_err(|error| ExecutorError::Other(format!("waiting for signals: {error}")))?;
        for filter in &self.filters {
            seccompiler::apply_filter(filter)
                .map_err(|error| ExecutorError::Other(format!("putting on the system call filter: {error}")))?;
        }
        let child = match Command::new(program).args(rest).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("the program {program} cannot be started: {error}");
                std::process::exit(NOT_STARTED);
            }
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(ExecutorError::InvalidArg)?;
        std::process::exit(attend(pid, signals))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

/// Passes signals on and takes in whatever ends, until the program itself has ended. Returns its exit status.
fn attend(program: Pid, mut signals: Signals) -> i32 {
    loop {
        match reap(program) {
            Ok(None) => {}
            Ok(Some(status)) => return status,
            Err(_) => return NOT_STARTED,
        }
        for signal in signals.wait() {
            if signal != SIGCHLD
                && let Some(signal) = Signal::from_named_raw(signal)
            {
                // It may have ended just now.
                let _ = kill_process(program, signal);
            }
        }
    }
}

fn reap(program: Pid) -> io::Result<Option<i32>> {
    while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
        if pid == program
            && let Some(code) = code_of(status)
        {
            return Ok(Some(code));
        }
    }
    Ok(None)
}

/// The exit status by which a process tells how another ended.
pub fn code_of(status: WaitStatus) -> Option<i32> {
    let by_signal = status.terminating_signal().map(|signal| SIGNAL_BASE.saturating_add(signal));
    status.exit_status().or(by_signal)
}
