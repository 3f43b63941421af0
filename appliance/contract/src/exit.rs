//! How an engine's process ends.

/// Exit codes that every engine keeps to, so that whoever runs jobs knows what became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All steps are done, the results lie in the output directory.
    Succeeded = 0,
    /// The run failed; the last event says why, the last checkpoint is whole.
    Failed = 1,
    /// The command line or the job file is wrong; nothing was written.
    Usage = 2,
    /// Stopped on request after a checkpoint; `--resume` goes on from there.
    Stopped = 3,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
