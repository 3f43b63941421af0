//! A virtual machine under QEMU with UEFI firmware, to try an artifact as a real machine would.
//!
//! The artifact is attached read-only, the guest reaches nobody, and what the guest does to its
//! firmware's variables is thrown away with the machine, and so is the site configuration, which may hold a key.

use crate::{
    boot::{
        console::Lines,
        firmware::{Firmware, QEMU},
        machine::{device_arguments, machine_arguments},
        qmp::{Qmp, QmpError},
    },
    interruption,
};
use ed25519_dalek::SigningKey;
use serde_json::json;
use std::{
    collections::VecDeque,
    fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Port of the API inside the guest.
pub const GUEST_PORT: u16 = 8443;
/// Longest that QEMU may take to answer a command.
const QMP_LIMIT: Duration = Duration::from_secs(20);
/// The device that gives programs the host's processor for guests.
const KVM: &str = "/dev/kvm";
/// Longest that firmware may take to its first word in a trial of it; one second is usual.
const TRIAL_LIMIT: Duration = Duration::from_secs(6);
/// Memory of the trial's machine, MiB.
const TRIAL_MEMORY: u32 = 256;
/// How often a wait looks whether QEMU has ended.
const TICK: Duration = Duration::from_millis(50);
/// Console lines that may wait to be read; the guest is held up beyond that.
const QUEUE: usize = 4096;
/// Console lines remembered for an error message.
const REMEMBERED: usize = 40;

/// How the artifact is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attach {
    /// A virtual disk.
    #[default]
    Virtio,
    /// An NVMe disk.
    Nvme,
    /// A SATA disk.
    Ahci,
    /// A USB stick.
    Usb,
}

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// The host's processor where that works, else emulation. A device file alone proves little (it
    /// may lie inside a machine that cannot nest another), so firmware is started for a moment.
    ///
    /// # Errors
    /// [`QemuError`] when QEMU or its firmware is missing.
    pub fn detect() -> Result<Self, QemuError> {
        let (qemu, firmware) = Firmware::find()?;
        if fs::File::options().read(true).write(true).open(KVM).is_err() {
            return Ok(Self::Tcg);
        }
        let mut arguments = machine_arguments(Self::Kvm, 1, TRIAL_MEMORY, &firmware);
        arguments.extend(["-nic", "none"].map(Into::into));
        let directory = firmware.lay_out()?;
        let talks = Machine::launch(&qemu, arguments, directory)
            .and_then(|mut machine| {
                machine.switch_on()?;
                machine.wait_for(TRIAL_LIMIT, |line| (!line.trim().is_empty()).then_some(()))
            })
            .is_ok();
        Ok(if talks { Self::Kvm } else { Self::Tcg })
    }
}

/// A machine to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The artifact, or any other disk image.
    pub image: PathBuf,
    /// How it is attached.
    pub attach: Attach,
    /// Logical block size of that disk: 512 or 4096.
    pub block_size: u16,
    /// Memory of the machine, MiB.
    pub memory: u32,
    /// Number of processors.
    pub cpus: u32,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// Text of the site configuration.
    pub site: Option<String>,
    /// Key that signs the site configuration which a check makes.
    pub site_key: Option<SigningKey>,
    /// Port of the host's loopback that leads to the guest's API; 0 takes a free one. No network at
    /// all when absent.
    pub port: Option<u16>,
    /// File that becomes a second disk, which the guest writes to: its data volume.
    pub data: Option<PathBuf>,
}

impl Options {
    /// A machine with a virtual disk of 512-byte blocks, 2 GiB of memory and no network. It has two processors; one where it
    /// is emulated, because a kernel that changes its own code while another emulated processor runs it at times falls over.
    pub fn new(image: impl Into<PathBuf>, accelerator: Accelerator) -> Self {
        let cpus = match accelerator {
            Accelerator::Kvm => 2,
            Accelerator::Tcg => 1,
        };
        let (attach, block_size, memory) = (Attach::Virtio, 512, 2048);
        let (image, site, site_key, port, data) = (image.into(), None, None, None, None);
        Self { image, attach, block_size, memory, cpus, accelerator, site, site_key, port, data }
    }
}

/// Why a machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// QEMU is not installed.
    #[error("cannot find {QEMU} in PATH; install it (Debian: apt install qemu-system-x86)")]
    NoQemu,
    /// UEFI firmware for it is not installed.
    #[error("cannot find UEFI firmware for virtual machines; install it (Debian: apt install ovmf)")]
    NoFirmware,
    /// The image cannot be used.
    #[error("cannot use {} as a disk: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The machine's files cannot be laid out.
    #[error("cannot prepare a virtual machine in the directory for temporary files: {0}")]
    Prepare(io::Error),
    /// QEMU does not start.
    #[error("cannot start {QEMU}: {reason}")]
    Start {
        /// What it said.
        reason: String,
    },
    /// QEMU does not obey.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The forwarded port is not known.
    #[error("qemu does not tell which port leads to the guest")]
    NoPort,
    /// The machine ended.
    #[error("the virtual machine ended ({status}); its console ends with:\n{console}")]
    Ended {
        /// How QEMU ended.
        status: ExitStatus,
        /// The last lines of the console.
        console: String,
    },
    /// This program was asked to end.
    #[error("the virtual machine was ended, as was asked")]
    Interrupted,
    /// What was waited for did not come.
    #[error("the virtual machine did not get there within {} s; its console ends with:\n{console}", limit.as_secs())]
    Timeout {
        /// How long it was given.
        limit: Duration,
        /// The last lines of the console.
        console: String,
    },
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    qmp: Qmp<ChildStdin>,
    lines: Receiver<String>,
    remembered: VecDeque<String>,
    port: Option<u16>,
    started: Instant,
    /// Holds the files that QEMU has open.
    _directory: TempDir,
}

impl Machine {
    /// Starts a machine.
    ///
    /// # Errors
    /// [`QemuError`] when QEMU or its firmware is missing, the image cannot be read, or QEMU refuses
    /// to start.
    pub fn start(options: &Options) -> Result<Self, QemuError> {
        let (qemu, firmware) = Firmware::find()?;
        let directory = firmware.lay_out()?;
        lay_out(options, directory.path())?;
        let mut arguments = machine_arguments(options.accelerator, options.cpus, options.memory, &firmware);
        arguments.extend(device_arguments(options));
        let mut machine = Self::launch(&qemu, arguments, directory)?;
        if options.port.is_some() {
            machine.port = Some(machine.forwarded_port()?);
        }
        machine.switch_on()?;
        Ok(machine)
    }

    /// Starts QEMU in `directory`, with the guest still switched off.
    fn launch(qemu: &Path, arguments: Vec<String>, directory: TempDir) -> Result<Self, QemuError> {
        let mut command = Command::new(qemu);
        // What it writes besides goes away with the machine.
        command.args(arguments).current_dir(directory.path()).env("TMPDIR", directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source: io::Error| QemuError::Start { reason: source.to_string() };
        let mut child = command.spawn().map_err(start)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(start(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = read_lines(stderr);
        let qmp = match Qmp::new(stdout, stdin, QMP_LIMIT) {
            Ok(qmp) => qmp,
            Err(error) => {
                // It may have ended by itself; then its own words say more than ours.
                let _ = child.kill();
                let _ = child.wait();
                let said: Vec<String> = lines.iter().take(REMEMBERED).collect();
                return Err(if said.is_empty() { error.into() } else { QemuError::Start { reason: said.join("; ") } });
            }
        };
        let (remembered, started) = (VecDeque::new(), Instant::now());
        Ok(Self { child, qmp, lines, remembered, port: None, started, _directory: directory })
    }

    fn switch_on(&mut self) -> Result<(), QemuError> {
        self.qmp.execute("cont", json!({}))?;
        self.started = Instant::now();
        Ok(())
    }

    /// The port of the host's loopback that leads to the guest's API.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// When the guest was switched on.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Reads the console until `wanted` gives something for a line, but no longer than `limit`. All
    /// lines, cleaned of what does not print, pass `wanted` once, in order.
    ///
    /// # Errors
    /// [`QemuError::Timeout`] or, when the machine ends, [`QemuError::Ended`]; [`QemuError::Interrupted`].
    pub fn wait_for<T>(&mut self, limit: Duration, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T, QemuError> {
        let deadline = Instant::now() + limit;
        loop {
            let next = self.lines.recv_timeout(TICK);
            // Ctrl-C reaches QEMU as well, which may have ended by it.
            not_interrupted()?;
            match next {
                Ok(line) => {
                    let found = wanted(&line);
                    self.remember(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_err(|source| QemuError::Start { reason: source.to_string() })?;
                    return Err(QemuError::Ended { status, console: self.last_lines() });
                }
            }
            if Instant::now() >= deadline {
                return Err(QemuError::Timeout { limit, console: self.last_lines() });
            }
        }
    }

    /// Lines of the console that came since the last look, without waiting.
    ///
    /// # Errors
    /// [`QemuError::Ended`] when the machine has ended and all its lines were seen; [`QemuError::Interrupted`].
    pub fn new_lines(&mut self) -> Result<Vec<String>, QemuError> {
        not_interrupted()?;
        let new: Vec<String> = self.lines.try_iter().collect();
        new.iter().for_each(|line| self.remember(line.clone()));
        match self.child.try_wait() {
            Ok(Some(status)) if new.is_empty() => Err(QemuError::Ended { status, console: self.last_lines() }),
            _ => Ok(new),
        }
    }

    /// Presses the power button, waits for the guest to switch itself off, and after `grace`
    /// switches it off. The disk is read-only, so nothing is lost.
    ///
    /// # Errors
    /// [`QemuError::Qmp`] when QEMU does not obey; it is ended all the same.
    pub fn powerdown(mut self, grace: Duration) -> Result<(), QemuError> {
        if !grace.is_zero() {
            self.obey("system_powerdown")?;
            let deadline = Instant::now() + grace;
            while Instant::now() < deadline {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return Ok(());
                }
                // A guest whose console nobody reads is held up.
                self.lines.try_iter().for_each(drop);
                thread::sleep(TICK);
            }
        }
        self.obey("quit")
    }

    /// Gives a command after which the machine may well be gone.
    fn obey(&mut self, command: &str) -> Result<(), QemuError> {
        match self.qmp.execute(command, json!({})) {
            Ok(_) | Err(QmpError::Gone(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The last lines of the console, as one text.
    pub fn last_lines(&self) -> String {
        self.remembered.iter().map(|line| format!("  {line}\n")).collect()
    }

    fn remember(&mut self, line: String) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(line);
    }

    /// Asks QEMU which port it forwards, which it chose itself when told 0.
    fn forwarded_port(&mut self) -> Result<u16, QemuError> {
        let table = self.qmp.execute("human-monitor-command", json!({ "command-line": "info usernet" }))?;
        let line = table.as_str().unwrap_or_default().lines().find(|line| line.contains("HOST_FORWARD"));
        let port = line.and_then(|line| line.split_ascii_whitespace().nth(3)).and_then(|port| port.parse().ok());
        port.ok_or(QemuError::NoPort)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_interrupted() -> Result<(), QemuError> {
    if interruption::is_asked() { Err(QemuError::Interrupted) } else { Ok(()) }
}

/// Puts the artifact and the site configuration where QEMU runs, under names that need no escaping.
fn lay_out(options: &Options, directory: &Path) -> Result<(), QemuError> {
    attach(&options.image, &directory.join("medium"), fs::File::options().read(true))?;
    if let Some(data) = &options.data {
        attach(data, &directory.join("data"), fs::File::options().read(true).write(true))?;
    }
    match &options.site {
        Some(site) => fs::write(directory.join("site"), site).map_err(QemuError::Prepare),
        None => Ok(()),
    }
}

/// Makes `name` lead to a file that can be opened so.
fn attach(file: &Path, name: &Path, open: &fs::OpenOptions) -> Result<(), QemuError> {
    let image = |source| QemuError::Image { path: file.to_owned(), source };
    let path = file.canonicalize().map_err(image)?;
    open.open(&path).map_err(image)?;
    symlink(path, name).map_err(QemuError::Prepare)
}

/// Reads a console into lines, as long as somebody takes them.
fn read_lines(mut source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(QUEUE);
    thread::spawn(move || {
        let mut cleaner = Lines::default();
        let mut buffer = vec![0; 4096];
        while let Ok(len @ 1..) = source.read(&mut buffer) {
            for line in cleaner.push(buffer.get(..len).unwrap_or_default()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        }
        let rest = cleaner.take();
        if !rest.is_empty() {
            // Nobody listens any more: nothing is lost.
            let _ = sender.send(rest);
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = lay_out(&Options::new("/nonexistent/a,b.gap", Accelerator::Tcg), directory.path()).unwrap_err();
        assert!(error.to_string().starts_with("cannot use /nonexistent/a,b.gap as a disk: "), "{error}");
    }

    #[test]
    fn firmware_starts_and_obeys() {
        let (qemu, firmware) = Firmware::find().unwrap();
        let arguments = machine_arguments(Accelerator::Tcg, 1, 128, &firmware);
        let mut machine = Machine::launch(&qemu, arguments, firmware.lay_out().unwrap()).unwrap();
        assert_eq!(machine.qmp.execute("query-status", json!({})).unwrap()["running"], false);
        machine.powerdown(Duration::ZERO).unwrap();
    }

    #[test]
    fn what_qemu_complains_about_is_passed_on() {
        let (qemu, firmware) = Firmware::find().unwrap();
        let arguments = vec!["-qmp".into(), "stdio".into(), "-machine".into(), "no-such-machine".into()];
        let error = Machine::launch(&qemu, arguments, firmware.lay_out().unwrap()).unwrap_err();
        assert!(error.to_string().contains("machine type"), "{error}");
    }
}
