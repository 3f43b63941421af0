//! How a command ends: exit codes and what is said on the way out.

use super::terminal::{say, tell_failure};
use std::{io::IsTerminal, process::ExitCode};

/// Why a command did not do what was asked.
///
/// The exit codes are a contract: 0 good, 1 could not run, 2 usage, 3 not trusted, 4 found wanting.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: something was missing, broken, full or unreachable.
    CouldNotRun(miette::Report),
    /// Exit code 2: the words of the command do not fit together.
    Usage(miette::Report),
    /// Exit code 3: what was looked at is not to be trusted.
    NotTrusted(miette::Report),
    /// Exit code 4: what was looked at does not do what it should.
    Wanting(miette::Report),
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

    /// Exit code 4 with this message and this advice.
    pub fn wanting(message: impl std::fmt::Display, advice: &str) -> Self {
        Self::Wanting(miette::miette!(help = advice.to_owned(), "{message}"))
    }

    /// Prints the reason on standard error, with `json` as an event, and gives the exit code.
    pub fn report(self, json: bool) -> ExitCode {
        let (report, code) = match self {
            Self::CouldNotRun(report) => (report, 1),
            Self::Usage(report) => (report, 2),
            Self::NotTrusted(report) => (report, 3),
            Self::Wanting(report) => (report, 4),
        };
        if json {
            let causes = report.chain().map(ToString::to_string);
            let related = report.related().into_iter().flatten().map(ToString::to_string);
            let message = causes.chain(related).collect::<Vec<_>>().join(": ");
            tell_failure(code, &message, report.help().map(|help| help.to_string()).as_deref());
        } else {
            // Words of cargo, uv and whatever else failed are in many errors.
            say(&plain(&format!("{report:?}")));
        }
        ExitCode::from(code)
    }
}

/// Text of several lines with everything escaped that a terminal obeys instead of showing it: what moves its cursor, what
/// gives it a title, a clipboard or a colour, and what turns the order of characters.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || c.is_control() && !matches!(c, '\n' | '\t') {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Settles how failures are shown, before the first is made. Lines are wrapped for people only: programs look for texts
/// that a line break would cut. There are no colours, which cannot be told from those of a program that failed.
pub(super) fn settle_style() {
    let handler = || {
        let wrap = std::io::stderr().is_terminal();
        let options = miette::MietteHandlerOpts::new().color(false).terminal_links(false);
        options.wrap_lines(wrap).break_words(false).build()
    };
    // It fails where it was settled before, in the same way.
    let _ = miette::set_hook(Box::new(move |_| Box::new(handler())));
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        Self::CouldNotRun(report)
    }
}

/// An error that carries nothing but its own chain: what was attempted, then what was found.
pub fn failed<E>(attempted: impl Into<String>) -> impl FnOnce(E) -> Failure
where
    E: std::error::Error + Send + Sync + 'static,
{
    let attempted = attempted.into();
    move |error| {
        let found = Told::of(&error);
        let report = miette::IntoDiagnostic::into_diagnostic(Err::<(), _>(found));
        let report = report.err().unwrap_or_else(|| miette::miette!("unknown error"));
        Failure::CouldNotRun(report.wrap_err(attempted))
    }
}

/// A chain of errors in which nothing is said twice: many errors say what their cause says as well.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Told {
    message: String,
    source: Option<Box<Told>>,
}

impl Told {
    fn of(error: &dyn std::error::Error) -> Self {
        let mut messages = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            let message = error.to_string();
            if messages.last().is_some_and(|last| !last.contains(&message)) {
                messages.push(message);
            }
            cause = error.source();
        }
        let last = Self { message: messages.pop().unwrap_or_default(), source: None };
        messages.into_iter().rev().fold(last, |source, message| Self { message, source: Some(Box::new(source)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_commands_no_terminal_and_keeps_its_lines() {
        let said = "error:\n\t\u{1b}[1mé │\u{1b}]52;c;aGk=\u{7}\r\u{9b}\u{202e}";
        assert_eq!(plain(said), "error:\n\t\\u{1b}[1mé │\\u{1b}]52;c;aGk=\\u{7}\\r\\u{9b}\\u{202e}");
    }

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("layer `a`: {0}")]
        Repeats(#[source] Box<Layered>),
        #[error("reading")]
        Adds(#[source] Box<Layered>),
        #[error("no such file")]
        End,
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let told = Told::of(&Layered::Repeats(Box::new(Layered::Adds(Box::new(Layered::End)))));
        let cause = told.source.unwrap();
        assert_eq!((told.message.as_str(), cause.message.as_str()), ("layer `a`: reading", "no such file"));
        assert!(cause.source.is_none());
    }
}
