//! Starting the agent in the OS image.
//!
//! PID 1 stays in the initramfs. It starts itself once more with [`ENTER`] as argument; that process takes a copy of the
//! mount namespace, makes the OS image its root and becomes the agent.

use rustix::{
    fs::{Advice, CWD, fadvise},
    mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount},
    process::{Pid, chdir, chroot, getpid, setsid},
};
use std::{
    convert::Infallible,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use crate::{Attempt, Stop, console::Consoles, kernel, sysroot::SYSROOT};

/// Argument that makes this program enter the OS image.
pub const ENTER: &str = "enter-os-image";
/// The agent inside the OS image.
pub const AGENT: &str = "/usr/bin/gapd";
/// Everything that the agent finds in its environment.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("TERM", "linux"),
];

/// Asks the kernel to read the agent into its cache, so that the rest of the boot and the hashing of its pages go on side
/// by side. Whether that succeeds shows when the agent is started.
pub fn read_ahead(image: &Path) {
    if let Ok(file) = File::open(image.join(AGENT.trim_start_matches('/'))) {
        let _ = fadvise(&file, 0, None, Advice::WillNeed);
    }
}

/// Starts the agent; what it says is passed on to the consoles for as long as it or its children live.
///
/// # Errors
/// What the kernel answered when no process could be started.
pub fn start(consoles: &Arc<Consoles>) -> io::Result<Pid> {
    let (reader, writer) = io::pipe()?;
    let child = Command::new("/proc/self/exe")
        .arg0("gap-init")
        .arg(ENTER)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let consoles = Arc::clone(consoles);
    thread::Builder::new().name("console".into()).spawn(move || consoles.relay(reader))?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Makes the OS image the root of this process and becomes the agent. Does not return when it succeeds.
///
/// # Errors
/// [`Stop`] with the step that failed.
pub fn enter() -> Result<Infallible, Stop> {
    if getpid() == Pid::INIT {
        return Err(Stop::Failed("PID 1 itself must stay in the initramfs".into()));
    }
    setsid().attempt(|| "starting a session".into())?;
    kernel::unshare_mounts().attempt(|| "leaving the mount namespace of PID 1".into())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .attempt(|| "making mounts private".into())?;
    // The initramfs cannot be left by pivot_root(2), which the kernel refuses for its own first root.
    chdir(format!("/{SYSROOT}")).attempt(|| "entering the OS image".into())?;
    move_mount(CWD, ".", CWD, "/", MoveMountFlags::empty()).attempt(|| "moving the OS image to /".into())?;
    chroot(".").attempt(|| "making the OS image the root".into())?;
    chdir("/").attempt(|| "entering the root".into())?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    kernel::unblock_signals().attempt(|| "letting signals through".into())?;
    let error = Command::new(AGENT).env_clear().envs(ENVIRONMENT).exec();
    Err(Stop::System { what: format!("starting {AGENT} in the OS image"), source: error })
}
