//! A program that is run against a booted appliance: it finds address, certificate and token in its environment.

use crate::boot::qemu::{Machine, QemuError};
use std::{
    ffi::OsString,
    io::{self, Write},
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};
use tempfile::NamedTempFile;

/// Variables that `gapctl` knows: the address of the API, the file with its certificate, and an admin's token.
const SERVER: &str = "GAPCTL_SERVER";
const CERTIFICATE: &str = "GAPCTL_CA";
const TOKEN: &str = "GAPCTL_TOKEN";
/// How often the program and the machine are looked after.
const TICK: Duration = Duration::from_millis(50);

/// By what a program reaches the appliance.
pub(super) struct Access<'a> {
    /// Port on this machine's loopback.
    pub port: u16,
    /// The API's certificate, PEM.
    pub certificate: &'a str,
    /// An admin's token.
    pub token: &'a str,
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("cannot run `{}` against the appliance: {source}", name.display())]
    Start {
        /// The program.
        name: OsString,
        /// The system's answer.
        source: io::Error,
    },
    /// It failed.
    #[error("`{}`, run against the appliance, failed ({status})", name.display())]
    Failed {
        /// The program.
        name: OsString,
        /// How it ended.
        status: ExitStatus,
    },
    /// The machine ended under it.
    #[error(transparent)]
    Machine(#[from] QemuError),
}

/// Runs `program` with its arguments until it ends; its input and output are those of this process. Every line that the
/// machine prints meanwhile passes `console`.
pub(super) fn run(
    (name, arguments): (&OsString, &[OsString]),
    access: &Access<'_>,
    machine: &mut Machine,
    console: &mut impl FnMut(&str),
) -> Result<(), ProgramError> {
    let start = |source| ProgramError::Start { name: name.clone(), source };
    let certificate = written(access.certificate).map_err(start)?;
    let mut command = Command::new(name);
    command.args(arguments).env(SERVER, format!("https://127.0.0.1:{}", access.port));
    command.env(CERTIFICATE, certificate.path()).env(TOKEN, access.token);
    let mut child = Running(command.spawn().map_err(start)?);
    loop {
        if let Some(status) = child.0.try_wait().map_err(start)? {
            let failed = ProgramError::Failed { name: name.clone(), status };
            return if status.success() { Ok(()) } else { Err(failed) };
        }
        machine.new_lines()?.iter().for_each(|line| console(line));
        thread::sleep(TICK);
    }
}

fn written(text: &str) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// A program that does not outlive the machine it is run against.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
