//! The helper's first half: enters the name spaces and starts PID 1 in them.

use super::{
    device, ids,
    init::init,
    mounts,
    protocol::{MAP_ME, MAPPED, MAX_MESSAGE, Report, Specification},
};
use rustix::{process::Signal, thread::UnshareFlags};
use std::{
    ffi::OsString,
    io::{self, Read, Write},
    process::{Command, ExitCode, Stdio},
};

/// First argument with which `main` calls [`entry`].
pub const ENTRY_ARGUMENT: &str = "__sandbox";
/// Second argument of the process that is PID 1 inside.
const INIT_ARGUMENT: &str = "init";

/// The hidden subcommand: `arguments` are those after [`ENTRY_ARGUMENT`]. Must be called while the
/// process has a single thread.
pub fn entry(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let result = match arguments.next() {
        None => enter(),
        Some(argument) if argument == INIT_ARGUMENT => read_message(&mut io::stdin()).map(|message| init(&message)),
        Some(_) => Err("the sandbox is started by gapimage itself".to_owned()),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            report(&Report::Broken { message });
            ExitCode::FAILURE
        }
    }
}

/// Writes the report to standard output; if that fails, the caller sees that it is missing.
pub(super) fn report(report: &Report) {
    let text = serde_json::to_vec(report).unwrap_or_default();
    let mut out = io::stdout();
    let _ = out.write_all(&text).and_then(|()| out.flush());
}

fn enter() -> Result<ExitCode, String> {
    die_with_parent()?;
    let mut input = io::stdin();
    let message = read_message(&mut input)?;
    unshare().map_err(|error| format!("cannot make name spaces: {error}{}", ids::hint()))?;
    let handshake = |error: io::Error| format!("the caller went away: {error}");
    io::stdout().write_all(&[MAP_ME]).and_then(|()| io::stdout().flush()).map_err(handshake)?;
    let mut answer = [0];
    input.read_exact(&mut answer).map_err(handshake)?;
    if answer != [MAPPED] {
        return Err("the caller did not map the ids".to_owned());
    }
    let not_root = |error: rustix::io::Errno| format!("cannot become root inside: {error}");
    rustix::thread::set_thread_groups(&[]).map_err(not_root)?;
    rustix::thread::set_thread_gid(rustix::process::Gid::ROOT).map_err(not_root)?;
    rustix::thread::set_thread_uid(rustix::process::Uid::ROOT).map_err(not_root)?;
    let specification: Specification =
        serde_json::from_slice(&message).map_err(|error| format!("the specification is malformed: {error}"))?;
    if specification.view
        && let Err(message) = hand_over_view(&input, &specification)
    {
        report(&Report::NoView { message });
        return Ok(ExitCode::FAILURE);
    }
    let failed = |error: io::Error| format!("cannot start the first process inside: {error}");
    let mut child = Command::new("/proc/self/exe")
        .args([ENTRY_ARGUMENT, INIT_ARGUMENT])
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        write_message(&mut stdin, &message).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Mounts a root that the caller serves, and hands it the device.
fn hand_over_view(caller: &io::Stdin, specification: &Specification) -> Result<(), String> {
    let over = specification.into.as_ref().map(|_| (&specification.scratch, specification.output.as_path()));
    let device = mounts::view(over)?;
    device::send(caller, &device).map_err(|error| format!("cannot hand the view over: {error}"))
}

/// Makes the kernel kill this process when the one that started it dies.
pub(super) fn die_with_parent() -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot tie the sandbox to its caller: {error}"))
}

#[expect(deprecated, reason = "unsafe only for file tables (FILES), which stay shared")]
fn unshare() -> rustix::io::Result<()> {
    rustix::thread::unshare(
        UnshareFlags::NEWUSER
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS,
    )
}

/// Writes `message` after its length.
pub(super) fn write_message(out: &mut dyn Write, message: &[u8]) -> io::Result<()> {
    out.write_all(&(message.len() as u64).to_le_bytes())?;
    out.write_all(message)?;
    out.flush()
}

fn read_message(input: &mut dyn Read) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("no specification came: {error}");
    let mut len = [0; 8];
    input.read_exact(&mut len).map_err(failed)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_MESSAGE {
        return Err("the specification is too long".to_owned());
    }
    let mut message = Vec::new();
    input.take(len).read_to_end(&mut message).map_err(failed)?;
    if message.len() as u64 != len {
        return Err("the specification ended early".to_owned());
    }
    Ok(message)
}
