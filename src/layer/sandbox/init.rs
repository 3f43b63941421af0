//! The helper's second half, PID 1 inside: makes the root, runs the programs, writes what changed.

use super::{
    Scratch, Step,
    collect::Snapshot,
    entry::{die_with_parent, report},
    mounts,
    populate::populate,
    protocol::{Report, Specification},
};
use crate::layer::{
    tar::{TarPlan, read_index},
    tree::{Tree, TreePath},
};
use rustix::{
    fs::Mode,
    process::{Pid, Resource, Rlimit, Signal, WaitOptions},
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set, remove_capability_from_bounding_set,
        set_capabilities,
    },
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd,
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
};

/// Where programs are looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most files a program may open; some close every possible one, so it must not be millions.
const MAX_OPEN_FILES: u64 = 4096;

/// Does what the specification says and reports.
pub(super) fn init(message: &[u8]) -> ExitCode {
    let specification = serde_json::from_slice::<Specification>(message);
    let result = specification
        .map_err(|error| format!("the specification is malformed: {error}"))
        .and_then(|specification| die_with_parent().and_then(|()| perform(&specification)));
    let (outcome, code) = match result {
        Ok(outcome @ Report::Done { .. }) => (outcome, ExitCode::SUCCESS),
        Ok(outcome) => (outcome, ExitCode::FAILURE),
        Err(message) => (Report::Broken { message }, ExitCode::FAILURE),
    };
    report(&outcome);
    code
}

fn perform(specification: &Specification) -> Result<Report, String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("cannot open {path}: {error}")
    };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if specification.clean_only {
        let stage = mounts::stage(&specification.scratch)?;
        empty(&stage).map_err(failed(&stage))?;
        return Ok(Report::Done { output_len: 0 });
    }
    if specification.view {
        return perform_in_view(specification);
    }
    let input = File::open(&specification.input).map_err(failed(&specification.input))?;
    let output = open_output(&specification.output)?;
    let binds = mounts::hold(&specification.binds)?;
    let stage = mounts::stage(&specification.scratch)?;
    let index = read_index(&input, specification.input_len).map_err(|error| error.to_string())?;
    populate(&stage, &index, &input)?;
    drop((index, input));
    let snapshot = Snapshot::take(&stage)?;
    let made = mounts::enter(&stage, binds)?;
    if specification.read_only {
        mounts::close_root()?;
    }
    let outcome = run_steps(specification)?;
    kill_others().map_err(|error| format!("cannot end what still runs inside: {error}"))?;
    if specification.read_only {
        mounts::reopen_root()?;
    }
    mounts::leave(&specification.binds, &made)?;
    let root = Path::new("/");
    let outcome = match outcome {
        Some(failure) => failure,
        None => {
            let changes = snapshot.changes(root, &TreePath::root(), specification.source_date)?;
            write_changes(&changes, &output)?
        }
    };
    if matches!(specification.scratch, Scratch::Directory(_)) {
        empty(root).map_err(|error| format!("cannot empty the scratch directory: {error}"))?;
    }
    Ok(outcome)
}

/// Runs the steps in the root that is mounted already, and of which nothing comes back, or one directory.
fn perform_in_view(specification: &Specification) -> Result<Report, String> {
    if let Some(into) = &specification.into {
        let into = TreePath::new(into).map_err(|error| format!("the directory for what comes back: {error}"))?;
        return perform_over_view(specification, &into);
    }
    let nothing = mounts::hold(&[])?;
    mounts::enter(Path::new(mounts::STAGE), nothing)?;
    mounts::close_root()?;
    let outcome = run_steps(specification)?;
    kill_others().map_err(|error| format!("cannot end what still runs inside: {error}"))?;
    Ok(outcome.unwrap_or(Report::Done { output_len: 0 }))
}

/// Runs the steps in a root that lies over the one that is mounted already, and writes what they left in `into`.
fn perform_over_view(specification: &Specification, into: &TreePath) -> Result<Report, String> {
    let output = open_output(&mounts::output())?;
    let stage = match mounts::overlay() {
        Ok(stage) => stage,
        Err(message) => return Ok(Report::NoView { message }),
    };
    let nothing = mounts::hold(&[])?;
    let made = mounts::enter(&stage, nothing)?;
    let start = Snapshot::of_nothing();
    let outcome = run_steps(specification)?;
    kill_others().map_err(|error| format!("cannot end what still runs inside: {error}"))?;
    mounts::leave(&[], &made)?;
    match outcome {
        Some(failure) => Ok(failure),
        None => write_changes(&start.changes(Path::new("/"), into, specification.source_date)?, &output),
    }
}

fn open_output(path: &Path) -> Result<File, String> {
    OpenOptions::new().write(true).open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))
}

fn write_changes(changes: &Tree, mut output: &File) -> Result<Report, String> {
    let plan = TarPlan::new(changes).map_err(|error| error.to_string())?;
    plan.write(&mut output).map_err(|error| format!("cannot write the changes: {error}"))?;
    Ok(Report::Done { output_len: plan.size() })
}

/// Runs all steps; the report of the first that fails.
fn run_steps(specification: &Specification) -> Result<Option<Report>, String> {
    let limit = |maximum| Rlimit { current: Some(maximum), maximum: Some(maximum) };
    let limited = rustix::process::setrlimit(Resource::Nofile, limit(MAX_OPEN_FILES))
        .and_then(|()| rustix::process::setrlimit(Resource::Core, limit(0)));
    limited.map_err(|error| format!("cannot set limits: {error}"))?;
    for (number, step) in specification.steps.iter().enumerate() {
        let status = match run_step(step, specification.source_date) {
            Ok(status) if status.success() => continue,
            Ok(status) => status.to_string(),
            Err(error) => format!("the message that it cannot be started: {error}"),
        };
        return Ok(Some(Report::StepFailed { step: number, status }));
    }
    Ok(None)
}

/// What programs inside may do as root: to files, users and processes of the sandbox. What mounts and traces are made of is
/// this process' alone, which takes them away again: read-only places must stay so.
const LEFT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// Runs one program from a thread of its own, which has given up what programs must not have: capabilities are a thread's,
/// and go on to what it starts.
fn run_step(step: &Step, source_date: i64) -> io::Result<ExitStatus> {
    let run = || give_up_capabilities().and_then(|()| run_program(step, source_date));
    let failed = || io::Error::other("the thread that starts it ended");
    thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|_| Err(failed())))
}

/// Leaves this thread and all that it will start no more than [`LEFT`].
fn give_up_capabilities() -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // The kernel knows fewer than 64, and says so by an error.
        if !LEFT.contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: LEFT, permitted: LEFT, inheritable: none })?)
}

fn run_program(step: &Step, source_date: i64) -> io::Result<ExitStatus> {
    let (program, arguments) = step.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let directory = if step.directory.as_os_str().is_empty() { Path::new("/") } else { &step.directory };
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs([("PATH", SEARCH_PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8"), ("TERM", "dumb")])
        .env("SOURCE_DATE_EPOCH", source_date.to_string())
        .envs(&step.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .status()
}

/// Ends and reaps every other process of the name space.
fn kill_others() -> io::Result<()> {
    loop {
        let mut found = false;
        for entry in fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|pid| pid.as_raw_nonzero().get() != 1) {
                found = true;
                // It may be gone by now.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if !found {
            return Ok(());
        }
        std::thread::yield_now();
    }
}

/// Removes everything below a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
