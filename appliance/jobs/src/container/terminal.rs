//! The terminal of a job that a person works in.
//!
//! The agent holds one end of a pseudoterminal, the job's first process has the other one as its standard input and output
//! and makes it its controlling terminal. The agent's devpts is not mounted in the job, so the job reaches this one
//! terminal and no other.

use nix::{
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    termios::{Winsize, isatty, tcsetwinsize},
};
use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt};

/// A new terminal: the agent's end, which does not block, and the job's.
///
/// # Errors
/// What the system said.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname_r(&ours)?;
    let theirs = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
    Ok((ours.as_fd().try_clone_to_owned()?, theirs.into()))
}

/// Tells the job how large the window is.
///
/// # Errors
/// What the system said.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Makes the terminal that standard input is the controlling one of this process, which leads a session from then on.
/// Says whether it is a terminal at all.
///
/// # Errors
/// What the system said.
pub(super) fn take_control() -> io::Result<bool> {
    let input = io::stdin();
    if !isatty(&input) {
        return Ok(false);
    }
    // It leads one already where the runtime saw to that.
    let _ = rustix::process::setsid();
    rustix::process::ioctl_tiocsctty(&input)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    /// What comes out until it holds this text.
    fn read_until(ours: &OwnedFd, text: &str) -> String {
        let (until, mut all, mut piece) = (Instant::now() + Duration::from_secs(10), String::new(), [0; 256]);
        while !all.contains(text) {
            assert!(Instant::now() < until, "{text} is not in {all:?}");
            match rustix::io::read(ours, &mut piece) {
                Ok(length) => all.push_str(&String::from_utf8_lossy(&piece[..length])),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        all
    }

    #[test]
    fn a_program_has_a_terminal_of_the_size_that_it_is_told() {
        let (ours, theirs) = open().unwrap();
        resize(&ours, 31, 97).unwrap();
        let stdio = || Stdio::from(theirs.try_clone().unwrap());
        let script = "stty size; read line; echo got $line; test -t 0 && echo terminal";
        let mut child =
            Command::new("sh").args(["-c", script]).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        drop(theirs);
        read_until(&ours, "31 97");
        rustix::io::write(&ours, b"hello\n").unwrap();
        let rest = read_until(&ours, "terminal");
        assert!(rest.contains("got hello"), "{rest}");
        assert!(child.wait().unwrap().success());
    }
}
