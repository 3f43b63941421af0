//! Why a boot stops.

use std::io;

/// The reason that is printed on the consoles, after which nothing more is tried.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Something was found that must not be started: one sentence for whoever stands before the machine.
    #[error("not trusted: {0}")]
    NotTrusted(String),
    /// Something that the boot needs is not there or is not as it must be.
    #[error("failed: {0}")]
    Failed(String),
    /// The kernel refused something.
    #[error("failed: {what}: {source}")]
    System {
        /// What was attempted, and on what.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Says what was attempted when the kernel refused it.
pub trait Attempt<T> {
    /// Turns the kernel's error into [`Stop::System`]; `what` names the attempt and its object.
    ///
    /// # Errors
    /// The error of `self`, with `what` before it.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Stop>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Stop> {
        self.map_err(|error| Stop::System { what: what(), source: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consoles_two_kinds_of_reason_can_be_told_apart() {
        assert_eq!(Stop::NotTrusted("a".into()).to_string(), "not trusted: a");
        assert_eq!(Stop::Failed("a".into()).to_string(), "failed: a");
        let system = Err::<(), _>(rustix::io::Errno::NOENT).attempt(|| "opening /x".into()).unwrap_err();
        assert!(system.to_string().starts_with("failed: opening /x: No such file"));
    }
}
