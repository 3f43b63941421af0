//! The few calls that no safe library offers: the `ioctl`s of loop devices, blocked signals, namespaces.
//!
//! This is the one module with `unsafe`. What the calls carry is encoded elsewhere, in safe code; here every buffer's
//! length is tied to what the kernel will read and write.

#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Length of `struct loop_config` (linux/loop.h).
pub const LOOP_CONFIG: usize = 304;

/// `LOOP_CTL_GET_FREE`.
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
/// `LOOP_CONFIGURE`.
const LOOP_CONFIGURE: u32 = 0x4c0a;

/// Asks `/dev/loop-control` for the number of a free loop device.
///
/// # Errors
/// What the kernel answered.
pub fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this command takes no argument.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), libc::Ioctl::from(LOOP_CTL_GET_FREE)) };
    check(result)?.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sets up a loop device by a `struct loop_config`.
///
/// # Errors
/// What the kernel answered; `EBUSY` when another process was faster.
pub fn configure_loop_device(device: BorrowedFd<'_>, config: &[u8; LOOP_CONFIG]) -> io::Result<()> {
    // SAFETY: the pointer is valid for reads of the whole structure; the kernel writes nothing to it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::Ioctl::from(LOOP_CONFIGURE), config.as_ptr()) };
    check(result).map(drop)
}

/// Blocks all signals for this thread and those it will start, and returns a non-blocking descriptor that yields them.
///
/// # Errors
/// What the kernel answered.
pub fn all_signals() -> io::Result<OwnedFd> {
    let mut set = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set that the two calls after it only read; a null old set is allowed.
    let fd = unsafe {
        check(libc::sigfillset(set.as_mut_ptr()))?;
        check(libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()))?;
        check(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?
    };
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets all signals through again: what a program expects that is started by this one.
///
/// # Errors
/// What the kernel answered.
pub fn unblock_signals() -> io::Result<()> {
    let mut set = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that `sigprocmask` reads; a null old set is allowed.
    unsafe {
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        check(libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())).map(drop)
    }
}

/// Sends a signal to every process but PID 1, which must be the caller.
///
/// # Errors
/// `ESRCH` when there is no other process.
pub fn signal_everyone(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(-1, signal) }).map(drop)
}

/// Gives this process a copy of the mount namespace.
///
/// # Errors
/// What the kernel answered.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: a new mount namespace takes no descriptor and no memory away; only the working directory is unshared
    // with other threads, and the caller has none.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.map_err(io::Error::from)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
