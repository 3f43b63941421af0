//! How a command ends: exit codes and what is said on the way out.

use super::show;
use crate::{client::ClientError, profile::ProfileError, upload::UploadError};
use miette::Report;
use serde_json::json;
use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

/// Why a command did not do what was asked. The exit codes are a contract.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    CouldNot(Report),
    /// Exit code 2: the words do not fit together.
    Usage(Report),
    /// Exit code 3: the server is not the one that it should be.
    NotTrusted(Report),
    /// Exit code 4: what was waited for failed.
    Failed(Report),
}

impl Failure {
    /// Exit code 1 with this message and this advice.
    pub fn could_not(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::CouldNot(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Exit code 2 with this message and this advice.
    pub fn usage(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::Usage(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Exit code 4 with this message and this advice.
    pub fn failed(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::Failed(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Says why on standard error, with `json` for programs, and gives the exit code.
    pub fn report(self, json: bool) -> ExitCode {
        let (report, code) = match self {
            Self::CouldNot(report) => (report, 1),
            Self::Usage(report) => (report, 2),
            Self::NotTrusted(report) => (report, 3),
            Self::Failed(report) => (report, 4),
        };
        if json {
            let causes: Vec<String> = report.chain().map(ToString::to_string).collect();
            let help = report.help().map(|help| help.to_string());
            eprintln!("{}", show::json_line(&json!({"error": causes.join(": "), "help": help, "exit_code": code})));
        } else {
            // Words of the appliance are in most errors.
            eprintln!("{}", show::plain_lines(&format!("{report:?}")));
        }
        ExitCode::from(code)
    }
}

/// Settles how failures are shown, before the first is made: in one colour, as an appliance's own colours would be as
/// good as those, and wrapped for people only.
pub(super) fn settle_style() {
    let handler = || {
        let options = miette::MietteHandlerOpts::new().color(false).terminal_links(false);
        options.wrap_lines(stderr().is_terminal()).break_words(false).build()
    };
    // It fails where it was settled before, in the same way.
    let _ = miette::set_hook(Box::new(move |_| Box::new(handler())));
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::CouldNot(report)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotTrusted { .. } => Self::NotTrusted(error.into()),
            ClientError::Refused { status: 401, .. } => {
                let advice = "`gapctl login` asks for the token again; GAPCTL_TOKEN gives another one for once";
                Self::could_not(error, advice)
            }
            _ => Self::CouldNot(error.into()),
        }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Client(error) => error.into(),
            _ => Self::CouldNot(error.into()),
        }
    }
}

/// A profile that cannot be used is for the most part one that was said wrongly.
pub fn of_profile(error: ProfileError) -> Failure {
    match error {
        ProfileError::Client(error) => error.into(),
        ProfileError::NoTrust(_) => Failure::Usage(error.into()),
        _ => Failure::CouldNot(error.into()),
    }
}
