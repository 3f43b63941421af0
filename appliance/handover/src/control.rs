//! What the agent asks of PID 1, and what its exit status tells PID 1.
//!
//! A request is a signal: PID 1 needs no socket for it, and only root inside the appliance can send it.

/// Exit status of an agent that was asked to stop and did.
pub const EXIT_STOPPED: u8 = 0;
/// Exit status of an agent that could not run for a reason that starting it again may mend.
pub const EXIT_FAILED: u8 = 1;
/// Exit status of an agent that checked the release by itself and does not trust it, or found that it disagrees with
/// the boot report. Fatal: starting it again cannot help, and PID 1 says so and stops.
pub const EXIT_NOT_TRUSTED: u8 = 3;

/// Something that only PID 1 can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Stop everything and switch the machine off.
    PowerOff,
    /// Stop everything and start the machine again.
    Reboot,
}

impl Request {
    /// Number of the signal that PID 1 takes as this request: 12 (`SIGUSR2`) and 15 (`SIGTERM`), as busybox's init
    /// does. The numbers are those of every Linux architecture but MIPS, SPARC and Alpha.
    pub const fn signal_number(self) -> i32 {
        match self {
            Self::PowerOff => 12,
            Self::Reboot => 15,
        }
    }

    /// The request that this signal means, if it means one.
    pub const fn from_signal_number(number: i32) -> Option<Self> {
        match number {
            12 => Some(Self::PowerOff),
            15 => Some(Self::Reboot),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_way_as_a_signal() {
        for request in [Request::PowerOff, Request::Reboot] {
            assert_eq!(Request::from_signal_number(request.signal_number()), Some(request));
        }
        assert_eq!(Request::from_signal_number(9), None);
    }
}
