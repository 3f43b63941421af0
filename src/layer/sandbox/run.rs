//! The caller's half: hands the tree over, starts the helper, maps ids, waits, takes the changes.

use super::{
    Job, Outcome, Sandbox, SandboxError, Scratch, Writes, device,
    entry::{ENTRY_ARGUMENT, write_message},
    ids,
    protocol::{MAP_ME, MAPPED, MAX_MESSAGE, Report, Specification},
    view::View,
};
use crate::{
    interruption,
    layer::{
        tar::{TarPlan, read_index},
        tree::{Node, Tree},
    },
};
use rustix::process::{Pid, Signal};
use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

/// How much of the programs' output is kept, in bytes.
const KEPT_OUTPUT: usize = 64 << 10;
/// How much of it an error shows, in lines.
const SHOWN_LINES: usize = 40;
/// How long emptying a scratch directory may take.
const CLEANING_TIME: Duration = Duration::from_secs(300);

/// How often it is looked whether this program was asked to end.
const TICK: Duration = Duration::from_millis(100);

/// Why programs were ended before they came to their end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CutOff {
    Late,
    Interrupted,
}

/// Told what programs print.
pub type Hear<'a> = &'a (dyn Fn(&[u8]) + Sync);

impl Sandbox {
    /// Runs the job and returns what it changed.
    ///
    /// # Errors
    /// [`SandboxError`]; nothing is left behind then.
    pub fn run(&self, job: &Job<'_>) -> Result<Outcome, SandboxError> {
        self.run_heard(job, &|_| ())
    }

    /// The same, and `hear` is told what the programs print while they run.
    ///
    /// # Errors
    /// As for [`Sandbox::run`].
    pub fn run_heard(&self, job: &Job<'_>, hear: Hear<'_>) -> Result<Outcome, SandboxError> {
        let in_view = job.writes != Writes::Anywhere && job.binds.is_empty();
        if in_view && let Some(outcome) = self.run_in_view(job, hear)? {
            return Ok(outcome);
        }
        self.run_in_copy(job, hear)
    }

    /// Runs the job in a root that is served from where its bytes lie; `None` where that cannot be had.
    fn run_in_view(&self, job: &Job<'_>, hear: Hear<'_>) -> Result<Option<Outcome>, SandboxError> {
        let output = self.spooled()?;
        let specification = Specification {
            output: output.path().to_owned(),
            read_only: job.writes == Writes::Nothing,
            view: true,
            ..specification(job)
        };
        let result = self.perform(&specification, job.time_limit, hear, Some(View::new(job.root)));
        if !specification.read_only {
            self.clean(specification)?;
        }
        match result? {
            (Report::NoView { .. }, _) => Ok(None),
            (report, printed) => self.taken(job, report, printed, output).map(Some),
        }
    }

    /// Runs the job in a copy of the root.
    fn run_in_copy(&self, job: &Job<'_>, hear: Hear<'_>) -> Result<Outcome, SandboxError> {
        let (mut input, output) = (self.spooled()?, self.spooled()?);
        let plan = TarPlan::new(&without_devices(job.root))?;
        plan.write(input.as_file_mut()).map_err(self.spooling())?;
        let specification = Specification {
            input: input.path().to_owned(),
            input_len: plan.size(),
            output: output.path().to_owned(),
            read_only: job.writes == Writes::Nothing,
            ..specification(job)
        };
        let result = self.perform(&specification, job.time_limit, hear, None);
        if !matches!(result, Ok((Report::Done { .. }, _))) {
            self.clean(specification)?;
        }
        let (report, printed) = result?;
        self.taken(job, report, printed, output)
    }

    /// Empties a directory that an interrupted job left full, with the rights over all ids that a job has.
    ///
    /// # Errors
    /// [`SandboxError`] if something in it cannot be removed even so.
    pub fn empty(&self, directory: &Path) -> Result<(), SandboxError> {
        let clean = Specification {
            input: PathBuf::new(),
            input_len: 0,
            output: PathBuf::new(),
            scratch: Scratch::Directory(directory.to_owned()),
            binds: Vec::new(),
            steps: Vec::new(),
            source_date: 0,
            read_only: false,
            view: false,
            into: None,
            clean_only: true,
        };
        match self.perform(&clean, CLEANING_TIME, &|_| (), None)? {
            (Report::Broken { message }, printed) => Err(SandboxError::Broken { message, output: shown(&printed) }),
            _ => Ok(()),
        }
    }

    /// Empties a scratch directory in which a job ran.
    fn clean(&self, specification: Specification) -> Result<(), SandboxError> {
        if matches!(specification.scratch, Scratch::Memory(_)) {
            return Ok(());
        }
        let clean =
            Specification { clean_only: true, view: false, binds: Vec::new(), steps: Vec::new(), ..specification };
        self.perform(&clean, CLEANING_TIME, &|_| (), None).map(drop)
    }

    /// What came back, if the helper says that all went well.
    fn taken(
        &self,
        job: &Job<'_>,
        report: Report,
        printed: Vec<u8>,
        output: NamedTempFile,
    ) -> Result<Outcome, SandboxError> {
        let len = finished(job, report, &printed)?;
        if len == 0 {
            return Ok(Outcome { changes: Tree::new(), output: printed });
        }
        let file = output.into_file();
        let changes = read_index(&file, len)?.to_tree(&Arc::new(file), 0);
        let changes = match &job.writes {
            Writes::Into(directory) => {
                changes.below(directory).map(|(path, node)| (path.clone(), node.clone())).collect()
            }
            Writes::Nothing | Writes::Anywhere => changes,
        };
        Ok(Outcome { changes, output: printed })
    }

    fn spooled(&self) -> Result<NamedTempFile, SandboxError> {
        NamedTempFile::new_in(&self.spool).map_err(self.spooling())
    }

    fn spooling(&self) -> impl Fn(io::Error) -> SandboxError {
        let text = format!("cannot spool the sandbox's files in {}", self.spool.display());
        during(move || text.clone())
    }

    fn perform(
        &self,
        specification: &Specification,
        limit: Duration,
        hear: Hear<'_>,
        view: Option<View>,
    ) -> Result<(Report, Vec<u8>), SandboxError> {
        let starting = || format!("cannot start the sandbox's helper {}", self.helper.display());
        let message = serde_json::to_vec(specification).map_err(io::Error::other).map_err(during(starting))?;
        let (socket, theirs) = UnixStream::pair().map_err(during(starting))?;
        let mut child = Command::new(&self.helper)
            .arg(ENTRY_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(during(starting))?;
        let errors = child.stderr.take();
        let pid = Pid::from_child(&child);
        std::thread::scope(|scope| {
            let printed = scope.spawn(move || errors.map(|errors| tail(errors, hear)).unwrap_or_default());
            let (finished, watch) = mpsc::channel::<()>();
            // What a job left is cleaned up also where the program is to end.
            let heeds = !specification.clean_only;
            let watchdog = scope.spawn(move || {
                let cut_off = until_cut_off(&watch, limit, heeds)?;
                // The child is not waited for before this thread has ended, so the number is still its own.
                rustix::process::kill_process(pid, Signal::KILL).is_ok().then_some(cut_off)
            });
            let report = converse(&mut child, socket, &message, view);
            if report.is_err() {
                // The watchdog may have been first.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            drop(finished);
            let cut_off = watchdog.join().unwrap_or_default();
            let waited = child.wait().map_err(during(starting));
            let printed = printed.join().unwrap_or_default();
            // Ctrl-C reaches the programs as well, which may have ended by it before.
            if cut_off == Some(CutOff::Interrupted) || heeds && interruption::is_asked() {
                return Err(SandboxError::Interrupted);
            }
            if cut_off == Some(CutOff::Late) {
                return Err(SandboxError::TimedOut { seconds: limit.as_secs(), output: shown(&printed) });
            }
            waited?;
            match report? {
                Some(report) => Ok((report, printed)),
                None => {
                    let message = "the helper died without a word".to_owned();
                    Err(SandboxError::Broken { message, output: shown(&printed) })
                }
            }
        })
    }
}

/// Waits until the programs are over, `watch` is closed then, or have to be ended.
fn until_cut_off(watch: &mpsc::Receiver<()>, limit: Duration, heeds: bool) -> Option<CutOff> {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        match watch.recv_timeout(left.min(TICK)) {
            Err(mpsc::RecvTimeoutError::Timeout) if heeds && interruption::is_asked() => {
                return Some(CutOff::Interrupted);
            }
            Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() < limit => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return Some(CutOff::Late),
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// What the helper shall do for a job, without files.
fn specification(job: &Job<'_>) -> Specification {
    Specification {
        input: PathBuf::new(),
        input_len: 0,
        output: PathBuf::new(),
        scratch: job.scratch.clone(),
        binds: job.binds.clone(),
        steps: job.steps.clone(),
        source_date: job.source_date,
        read_only: false,
        view: false,
        into: match &job.writes {
            Writes::Into(directory) => Some(directory.as_bytes().to_vec()),
            Writes::Nothing | Writes::Anywhere => None,
        },
        clean_only: false,
    }
}

/// Says what was attempted when it failed.
fn during(what: impl Fn() -> String) -> impl Fn(io::Error) -> SandboxError {
    move |source| SandboxError::Io { during: what(), source }
}

/// The length of what came back, if the helper says that all went well.
fn finished(job: &Job<'_>, report: Report, printed: &[u8]) -> Result<u64, SandboxError> {
    match report {
        Report::Done { output_len } => Ok(output_len),
        Report::StepFailed { step, status } => {
            let command = job.steps.get(step).map(|step| step.command.join(" ")).unwrap_or_default();
            Err(SandboxError::Step { command, status, output: shown(printed) })
        }
        Report::Broken { message } | Report::NoView { message } => {
            Err(SandboxError::Broken { message, output: shown(printed) })
        }
    }
}

/// Hands over the specification, maps the ids when the helper asks for it, serves the view, and takes the report.
fn converse(
    child: &mut Child,
    mut socket: UnixStream,
    message: &[u8],
    view: Option<View>,
) -> Result<Option<Report>, SandboxError> {
    let talking = during(|| "cannot talk to the sandbox's helper".to_owned());
    let Some(mut stdout) = child.stdout.take() else { return Ok(None) };
    write_message(&mut socket, message).map_err(&talking)?;
    let mut first = [0];
    if stdout.read(&mut first).map_err(&talking)? == 0 {
        return Ok(None);
    }
    if first != [MAP_ME] {
        return rest(stdout, &first).map_err(&talking);
    }
    ids::map(child.id())?;
    socket.write_all(&[MAPPED]).map_err(&talking)?;
    if let Some(view) = view
        && let Some(device) = device::receive(&socket).map_err(io::Error::from).map_err(&talking)?
    {
        // It ends when the mount does, which is when the sandbox does; what it could say then is said by the programs that
        // could not read.
        std::thread::spawn(move || view.serve(device));
    }
    drop(socket);
    rest(stdout, &[]).map_err(&talking)
}

fn rest(stdout: ChildStdout, first: &[u8]) -> io::Result<Option<Report>> {
    let mut text = first.to_vec();
    stdout.take(MAX_MESSAGE).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
}

/// Reads everything, passes it on and keeps the end.
fn tail(mut source: impl Read, hear: Hear<'_>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 1 << 14];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        let printed = buffer.get(..count).unwrap_or_default();
        hear(printed);
        kept.extend_from_slice(printed);
        if kept.len() > 2 * KEPT_OUTPUT {
            kept.drain(..kept.len() - KEPT_OUTPUT);
        }
    }
    kept
}

/// The last lines, with everything escaped that could confuse a terminal.
fn shown(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(SHOWN_LINES);
    let last = lines.get(start..).unwrap_or_default().iter();
    last.map(|line| line.chars().flat_map(escaped).collect::<String>()).collect::<Vec<_>>().join("\n")
}

fn escaped(letter: char) -> impl Iterator<Item = char> {
    let control = letter.is_control() && letter != '\t';
    let plain = (!control).then_some(letter);
    let escape = control.then(|| letter.escape_default());
    plain.into_iter().chain(escape.into_iter().flatten())
}

fn without_devices(tree: &Tree) -> Tree {
    let kept = |node: &Node| !matches!(node, Node::CharDevice { .. } | Node::BlockDevice { .. });
    tree.iter().filter(|(_, node)| kept(node)).map(|(path, node)| (path.clone(), node.clone())).collect()
}
