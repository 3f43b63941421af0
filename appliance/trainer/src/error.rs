//! Why a job cannot be run, or ends before its time.

use crate::tensors::WriteError;
use gap_contract::{Failure, FailureCode};
use gap_lm::inference::LoadError;
use std::{fmt, io, path::Path};

/// A failed run: what goes into its last event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failed {
    failure: Failure,
    full: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure.message)?;
        match &self.failure.param {
            Some(param) => write!(f, " (`{param}` of the job)"),
            None => Ok(()),
        }
    }
}

impl Failed {
    /// From its kind and what to tell people.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { failure: Failure { code, message: message.into(), param: None }, full: false }
    }

    /// A model that cannot be used.
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(FailureCode::InvalidModel, message).about("model")
    }

    /// Names the field of the job that it goes back to, if none is named yet.
    #[must_use]
    pub fn about(mut self, param: &str) -> Self {
        self.failure.param.get_or_insert_with(|| param.to_owned());
        self
    }

    /// What goes into the event.
    #[must_use]
    pub const fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether a disk is full, and with room it would not have failed.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }
}

/// For a model's files.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "to stand in `map_err`")]
pub fn invalid_model(error: LoadError) -> Failed {
    Failed::model(error.to_string())
}

/// For an adapter's files.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "to stand in `map_err`")]
pub fn invalid_adapter(error: LoadError) -> Failed {
    Failed::new(FailureCode::InvalidAdapter, error.to_string()).about("adapter")
}

/// For a file with examples. Line 0 is the file as a whole.
#[must_use]
pub fn invalid_data(path: &Path, line: u64, what: impl fmt::Display) -> Failed {
    let place = if line == 0 { String::new() } else { format!(" line {line}") };
    Failed::new(FailureCode::InvalidData, format!("{}{place}: {what}", path.display()))
}

/// For what cannot be written or read back.
pub fn storage(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
    let doing = format!("cannot {what} {}", path.display());
    move |error| {
        let full = is_full(&error);
        let hint = if full { "; make room and resume the job" } else { "" };
        Failed { full, ..Failed::new(FailureCode::Storage, format!("{doing}: {error}{hint}")) }
    }
}

/// Whether there is no room left on the disk, or for whom the job runs.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// For tensors that cannot be written.
pub fn unwritten(what: &str, path: &Path) -> impl FnOnce(WriteError) -> Failed {
    let doing = format!("cannot {what} {}", path.display());
    let io = storage(what, path);
    move |error| match error {
        WriteError::Io(error) => io(error),
        WriteError::Compute(error) => error.into(),
        WriteError::Layout(_) => Failed::new(FailureCode::Internal, format!("{doing}: {error}")),
        WriteError::NotFinite(_) => {
            let message = format!("{doing}: {error}; lower `learning_rate` and resume");
            Failed::new(FailureCode::NotFinite, message).about("learning_rate")
        }
    }
}

impl From<candle_core::Error> for Failed {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let code = if text.to_lowercase().contains("out of memory") {
            FailureCode::OutOfMemory
        } else {
            FailureCode::Internal
        };
        Self::new(code, format!("computing failed: {text}"))
    }
}
