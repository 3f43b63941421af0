//! A virtual machine under QEMU with UEFI firmware, to try an artifact as a real machine would.
//!
//! The artifact is attached read-only, the guest reaches nobody, and what the guest does to its
//! firmware's variables is thrown away with the machine.

use crate::boot::{
    console::Lines,
    qmp::{Qmp, QmpError},
};
use gap_handover::site::FW_CFG_NAME;
use serde_json::json;
use std::{
    collections::VecDeque,
    env, fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The program, looked for in `PATH`.
const QEMU: &str = "qemu-system-x86_64";
/// Firmware code and its variables, as distributions lay them.
const FIRMWARE: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];
/// Port of the API inside the guest.
pub const GUEST_PORT: u16 = 8443;
/// Longest that QEMU may take to answer a command.
const QMP_LIMIT: Duration = Duration::from_secs(20);
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
    Sata,
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
    /// Port of the host's loopback that leads to the guest's API; 0 takes a free one. No network at
    /// all when absent.
    pub port: Option<u16>,
}

impl Options {
    /// A machine with a virtual disk of 512-byte blocks, 2 GiB of memory, two processors and no
    /// network.
    pub fn new(image: impl Into<PathBuf>, accelerator: Accelerator) -> Self {
        let (attach, block_size, memory, cpus) = (Attach::Virtio, 512, 2048, 2);
        Self { image: image.into(), attach, block_size, memory, cpus, accelerator, site: None, port: None }
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
        let qemu = find_program(QEMU).ok_or(QemuError::NoQemu)?;
        let (code, variables) = find_firmware().ok_or(QemuError::NoFirmware)?;
        let directory = lay_out(options, variables)?;
        let mut command = Command::new(qemu);
        command.args(arguments(options, code)).current_dir(directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source: io::Error| QemuError::Start { reason: source.to_string() };
        let mut child = command.spawn().map_err(start)?;
        let started = Instant::now();
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(start(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = read_lines(stderr);
        let qmp = match Qmp::new(stdout, stdin, QMP_LIMIT) {
            Ok(qmp) => qmp,
            Err(error) => {
                // It cannot be ended more than once, and its own words say more than ours.
                let _ = child.kill();
                let _ = child.wait();
                let said: Vec<String> = lines.iter().take(REMEMBERED).collect();
                return Err(if said.is_empty() { error.into() } else { QemuError::Start { reason: said.join("; ") } });
            }
        };
        let remembered = VecDeque::new();
        let mut machine = Self { child, qmp, lines, remembered, port: None, started, _directory: directory };
        if options.port.is_some() {
            machine.port = Some(machine.forwarded_port()?);
        }
        machine.qmp.execute("cont", json!({}))?;
        machine.started = Instant::now();
        Ok(machine)
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
    /// [`QemuError::Timeout`] or, when the machine ends, [`QemuError::Ended`].
    pub fn wait_for<T>(&mut self, limit: Duration, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T, QemuError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(TICK) {
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
    /// [`QemuError::Ended`] when the machine has ended and all its lines were seen.
    pub fn new_lines(&mut self) -> Result<Vec<String>, QemuError> {
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
            self.qmp.execute("system_powerdown", json!({}))?;
            let deadline = Instant::now() + grace;
            while Instant::now() < deadline {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return Ok(());
                }
                let _ = self.new_lines();
                thread::sleep(TICK);
            }
        }
        match self.qmp.execute("quit", json!({})) {
            // It may end before its answer is out.
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

/// Puts the files of a machine where QEMU runs, under names that need no escaping.
fn lay_out(options: &Options, variables: &Path) -> Result<TempDir, QemuError> {
    let image = |source| QemuError::Image { path: options.image.clone(), source };
    let path = options.image.canonicalize().map_err(image)?;
    fs::File::open(&path).map_err(image)?;
    let directory = tempfile::Builder::new().prefix("gapimage-boot-").tempdir().map_err(QemuError::Prepare)?;
    symlink(path, directory.path().join("medium")).map_err(QemuError::Prepare)?;
    fs::write(directory.path().join("variables"), fs::read(variables).map_err(QemuError::Prepare)?)
        .map_err(QemuError::Prepare)?;
    if let Some(site) = &options.site {
        fs::write(directory.path().join("site"), site).map_err(QemuError::Prepare)?;
    }
    Ok(directory)
}

/// QEMU's command line. Paths are relative to the machine's directory.
fn arguments(options: &Options, firmware: &Path) -> Vec<String> {
    let (accelerator, processor) = match options.accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", "max"),
    };
    let mut arguments: Vec<String> = ["-nodefaults", "-no-user-config", "-no-reboot", "-S"].map(Into::into).into();
    let mut add = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    add("name", "gapimage".into());
    add("machine", "q35".into());
    add("accel", accelerator.into());
    add("cpu", processor.into());
    add("smp", options.cpus.to_string());
    add("m", options.memory.to_string());
    add("display", "none".into());
    add("device", "VGA".into());
    // The console goes to standard error, where QEMU's own complaints go as well; standard input and
    // output carry the control protocol.
    add("chardev", "file,id=console,path=/dev/fd/2".into());
    add("serial", "chardev:console".into());
    add("qmp", "stdio".into());
    let file = |name: &str, path: &str, read_only: bool| {
        json!({ "driver": "raw", "node-name": name, "read-only": read_only, "file": { "driver": "file", "filename": path } })
            .to_string()
    };
    add("blockdev", file("firmware", &firmware.to_string_lossy(), true));
    add("blockdev", file("variables", "variables", false));
    add("machine", "pflash0=firmware,pflash1=variables".into());
    add("blockdev", file("medium", "medium", true));
    let blocks = format!("logical_block_size={0},physical_block_size={0}", options.block_size);
    let disk = format!("drive=medium,bootindex=0,{blocks}");
    match options.attach {
        Attach::Virtio => add("device", format!("virtio-blk-pci,{disk}")),
        Attach::Nvme => add("device", format!("nvme,serial=gapimage,{disk}")),
        Attach::Sata => add("device", format!("ide-hd,bus=ide.0,{disk}")),
        Attach::Usb => {
            add("device", "qemu-xhci".into());
            add("device", format!("usb-storage,{disk}"));
        }
    }
    if options.site.is_some() {
        add("fw_cfg", format!("name={FW_CFG_NAME},file=site"));
    }
    match options.port {
        Some(port) => {
            add("netdev", format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:{GUEST_PORT}"));
            // Without its boot ROM, which would look for a network to boot from.
            add("device", "virtio-net-pci,netdev=net,romfile=".into());
        }
        None => add("nic", "none".into()),
    }
    arguments
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

/// Finds a program in `PATH`.
fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Finds UEFI firmware: code and a fresh set of variables.
fn find_firmware() -> Option<(&'static Path, &'static Path)> {
    let pairs = FIRMWARE.into_iter().map(|(code, variables)| (Path::new(code), Path::new(variables)));
    pairs.into_iter().find(|(code, variables)| code.is_file() && variables.is_file())
}
