//! What PID 1 waits for: signals, and the power button.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use crate::{Attempt, Stop, kernel, power_button::PowerButtons};

/// Length of `struct signalfd_siginfo`.
const SIGINFO: usize = 128;
/// How long a new input device may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Something that PID 1 acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Children have ended.
    Child,
    /// The machine shall stop.
    End(End),
    /// The time given has passed.
    Timeout,
}

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off.
    PowerOff,
    /// Start again.
    Restart,
}

/// The sources of events.
#[derive(Debug)]
pub struct Events {
    signals: OwnedFd,
    buttons: PowerButtons,
}

impl Events {
    /// Takes all signals from now on and looks for power buttons.
    ///
    /// # Errors
    /// [`Stop::System`] when the kernel refuses.
    pub fn open_from(root: &Path) -> Result<Self, Stop> {
        // The kernel then asks PID 1 instead of restarting at once when Ctrl-Alt-Del is pressed.
        rustix::system::reboot(rustix::system::RebootCommand::CadOff).attempt(|| "taking Ctrl-Alt-Del".into())?;
        let signals = kernel::all_signals().attempt(|| "taking signals".into())?;
        Ok(Self { signals, buttons: PowerButtons::find_from(root) })
    }

    /// Waits for the next event, at most this long.
    pub fn next(&mut self, timeout: Duration) -> Event {
        let until = crate::clock::since_boot() + timeout;
        loop {
            self.buttons.look_again();
            if self.buttons.pressed() {
                return Event::End(End::PowerOff);
            }
            while let Some(signal) = self.next_signal() {
                if let Some(event) = meaning(signal) {
                    return event;
                }
            }
            let left = until.saturating_sub(crate::clock::since_boot());
            if left.is_zero() {
                return Event::Timeout;
            }
            self.wait(left.min(LOOK_AGAIN));
        }
    }

    fn next_signal(&self) -> Option<i32> {
        let mut info = [0_u8; SIGINFO];
        match rustix::io::read(&self.signals, &mut info) {
            Ok(SIGINFO) => i32::try_from(u32::from_ne_bytes(*info.first_chunk()?)).ok(),
            _ => None,
        }
    }

    fn wait(&self, timeout: Duration) {
        let mut descriptors = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        descriptors.extend(self.buttons.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let limit = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut descriptors, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            // Nothing that PID 1 could do; but it must not spin.
            Err(_) => std::thread::sleep(timeout.min(Duration::from_millis(100))),
        }
    }
}

/// What a signal to PID 1 means, see the documentation of this crate.
fn meaning(signal: i32) -> Option<Event> {
    match signal {
        libc::SIGCHLD => Some(Event::Child),
        libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGPWR => Some(Event::End(End::PowerOff)),
        libc::SIGTERM | libc::SIGINT => Some(Event::End(End::Restart)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_the_agent_was_promised() {
        assert_eq!(meaning(libc::SIGUSR2), Some(Event::End(End::PowerOff)));
        assert_eq!(meaning(libc::SIGTERM), Some(Event::End(End::Restart)));
        assert_eq!(meaning(libc::SIGINT), Some(Event::End(End::Restart)));
        assert_eq!(meaning(libc::SIGCHLD), Some(Event::Child));
        assert_eq!(meaning(libc::SIGHUP), None);
    }
}
