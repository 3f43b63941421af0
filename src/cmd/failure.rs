//! How a command ends: exit codes and what is said on the way out.

use std::process::ExitCode;

/// Why a command did not do what was asked.
///
/// The exit codes are a contract: 0 good, 1 could not run, 2 usage, 3 not trusted.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: something was missing, broken, full or unreachable.
    CouldNotRun(miette::Report),
    /// Exit code 2: the words of the command do not fit together.
    Usage(miette::Report),
    /// Exit code 3: what was looked at is not to be trusted.
    NotTrusted(miette::Report),
}

/// What a subcommand returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// Exit code 1 with this message and this advice.
    pub fn could_not_run(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::CouldNotRun(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Exit code 2 with this message and this advice.
    pub fn usage(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::Usage(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Exit code 3 with this message and this advice.
    pub fn not_trusted(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::NotTrusted(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Prints the reason on standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (report, code) = match self {
            Self::CouldNotRun(report) => (report, 1),
            Self::Usage(report) => (report, 2),
            Self::NotTrusted(report) => (report, 3),
        };
        eprintln!("{report:?}");
        ExitCode::from(code)
    }
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        Self::CouldNotRun(report)
    }
}

/// An error that carries nothing but its own chain: what was attempted, then what was found. A cause that the error
/// above it tells already is not told again.
pub fn failed<E>(attempted: impl Into<String>) -> impl FnOnce(E) -> Failure
where
    E: std::error::Error + Send + Sync + 'static,
{
    let attempted = attempted.into();
    move |error| {
        let mut said = vec![attempted];
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.last().is_some_and(|above| above.contains(&text)) {
                said.push(text);
            }
            next = cause.source();
        }
        let innermost = miette::Report::msg(said.pop().unwrap_or_default());
        Failure::CouldNotRun(said.into_iter().rev().fold(innermost, miette::Report::wrap_err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("layer `base`: {0}")]
    struct Layer(#[source] std::io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let error = Layer(std::io::Error::other("no such thing"));
        let Failure::CouldNotRun(report) = failed("locking")(error) else { panic!("another exit code") };
        let told: Vec<String> = report.chain().map(ToString::to_string).collect();
        assert_eq!(told, ["locking", "layer `base`: no such thing"]);
    }
}
