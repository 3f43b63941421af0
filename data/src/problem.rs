//! What is wrong with a data set: where, why, and what to do about it.
//!
//! No message repeats content of the data: it may be what must not leave it.

use serde::Serialize;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A place in an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The input, by the name that was given to it.
    pub file: Arc<str>,
    /// Where in it.
    pub at: At,
}

/// Where in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The file as a whole.
    File,
    /// A line, and a column in it.
    Line {
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1, where one can be named.
        column: Option<u64>,
    },
    /// A row of a file that has no lines, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match self.at {
            At::File => Ok(()),
            At::Line { line, column: None } => write!(f, ":{line}"),
            At::Line { line, column: Some(column) } => write!(f, ":{line}:{column}"),
            At::Row(row) => write!(f, " row {row}"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether a row can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The row cannot be used.
    Error,
    /// The row can be used; somebody should look.
    Warning,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The container is broken from here on.
    Container,
    /// A row longer than allowed.
    TooLong,
    /// Bytes that are not UTF-8.
    Encoding,
    /// A line that is not JSON.
    Json,
    /// A record with more or fewer fields than the header.
    Columns,
    /// A field that must be there.
    Missing,
    /// A field of the wrong type.
    Type,
    /// A text without content.
    Empty,
    /// A row of another format than the others.
    Format,
    /// A role that is not known.
    Role,
    /// Roles in an order that no chat template takes.
    RoleOrder,
    /// A conversation in which the assistant says nothing.
    NoAssistant,
    /// A preference between equals.
    NoPreference,
    /// A control character.
    ControlCharacter,
    /// A character that changes how text looks, but not what it is: directions, zero widths, byte order marks.
    HiddenCharacter,
    /// Traces of a wrong decoding.
    Misdecoded,
    /// A conversation that ends before the assistant's answer.
    OpenEnd,
}

impl Kind {
    /// Whether a row can be used in spite of it.
    pub const fn severity(self) -> Severity {
        match self {
            Self::HiddenCharacter | Self::Misdecoded | Self::OpenEnd => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Container => "write the file anew with the program that made it",
            Self::TooLong => "cut the text into several examples, or raise the limit",
            Self::Encoding => "save the file as UTF-8",
            Self::Json => "write one JSON object on each line, with a JSON library",
            Self::Columns => "quote fields that hold delimiters, quotes or line breaks",
            Self::Missing => "add the field, or name the column that holds it",
            Self::Type => "give the field the type that the format has",
            Self::Empty => "fill the field, or remove the row",
            Self::Format => "keep one format in a data set, or name the format",
            Self::Role => "use system, user, assistant or tool",
            Self::RoleOrder => "begin with system or user, and let user and assistant take turns",
            Self::NoAssistant => "add the assistant's answer, or remove the row",
            Self::NoPreference => "remove the row: it teaches nothing",
            Self::ControlCharacter => "remove the character; it usually comes from a wrong conversion",
            Self::HiddenCharacter => "remove the character unless the script needs it",
            Self::Misdecoded => "decode the source again with its real encoding",
            Self::OpenEnd => "add the answer, or cut the last turn",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One thing that is wrong with a row, before it is known where the row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: Kind,
    /// Such as `messages[2].content`.
    pub field: Option<String>,
    /// Column in characters, from 1.
    pub column: Option<u64>,
    pub message: String,
}

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, field: None, column: None, message: message.into() }
    }

    pub fn of(kind: Kind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(kind, message) }
    }

    pub fn at(self, file: &Arc<str>, at: At) -> Problem {
        let at = match at {
            At::Line { line, column: None } => At::Line { line, column: self.column },
            other => other,
        };
        Problem { kind: self.kind, place: Place { file: file.clone(), at }, field: self.field, message: self.message }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// The field, such as `messages[2].content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, without content of the data.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(field) = &self.field {
            write!(f, "`{field}`: ")?;
        }
        write!(f, "{}; {}", self.message, self.kind.remedy())
    }
}

/// The first problems with their places, and the numbers of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The first ones, in the order of the inputs.
    pub first: Vec<Problem>,
    /// How many of each kind there are in all.
    pub counts: BTreeMap<Kind, u64>,
}

impl Problems {
    pub(crate) fn add(&mut self, problem: Problem, limit: usize) {
        *self.counts.entry(problem.kind).or_default() += 1;
        if self.first.len() < limit {
            self.first.push(problem);
        }
    }

    /// Problems of that severity.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.severity() == severity).map(|(_, count)| count).sum()
    }

    /// The problems that are counted but not listed.
    pub fn unlisted(&self) -> u64 {
        self.counts.values().sum::<u64>().saturating_sub(self.first.len() as u64)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.first {
            writeln!(f, "{problem}")?;
        }
        if self.unlisted() > 0 {
            let all: Vec<String> = self.counts.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
            writeln!(f, "and {} more; in all {}", self.unlisted(), all.join(", "))?;
        }
        Ok(())
    }
}
