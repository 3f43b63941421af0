//! What is wrong with a recipe, and where.

use miette::{Diagnostic, NamedSource, SourceSpan};
use std::{
    cell::RefCell,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One mistake in a recipe or in a definition that it uses.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    #[help]
    pub help: Option<String>,
    /// The file that holds the mistake.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    #[source_code]
    source_text: Arc<NamedSource<String>>,
    #[label]
    span: SourceSpan,
}

/// Why a recipe was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RecipeErrors {
    /// The file could not be read.
    #[error("the recipe `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read and is wrong.
    #[error("the recipe `{}` has {}", path.display(), count(problems))]
    Invalid {
        /// The recipe.
        path: PathBuf,
        /// What is wrong, in the order of the files; at least one.
        problems: Vec<Problem>,
    },
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "an error".to_owned(),
        many => format!("{many} errors"),
    }
}

impl RecipeErrors {
    /// The problems found; none if the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

impl Diagnostic for RecipeErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems().iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// A TOML file that was read: its text, and the directory that its paths start from.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub path: PathBuf,
    text: Arc<NamedSource<String>>,
}

impl SourceFile {
    pub fn new(path: &Path, text: String) -> Arc<Self> {
        let name = path.to_string_lossy().into_owned();
        Arc::new(Self { path: path.to_owned(), text: Arc::new(NamedSource::new(name, text)) })
    }

    pub fn text(&self) -> &str {
        self.text.inner()
    }

    /// The directory that relative paths in this file start from.
    pub fn dir(&self) -> &Path {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        }
    }
}

/// A place in a file.
#[derive(Clone)]
pub(super) struct At {
    pub file: Arc<SourceFile>,
    pub span: Range<usize>,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.file.path.display(), self.span)
    }
}

impl At {
    /// Line and column, both from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.file.text().get(..self.span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        (before.matches('\n').count() + 1, column + 1)
    }
}

/// Problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes a problem without advice.
    pub fn add(&self, at: &At, message: impl Into<String>) {
        self.note(at, message.into(), None);
    }

    /// Notes a problem and how to mend it.
    pub fn add_with_help(&self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.note(at, message.into(), Some(help.into()));
    }

    fn note(&self, at: &At, message: String, help: Option<String>) {
        let (line, column) = at.line_column();
        self.0.borrow_mut().push(Problem {
            message,
            help,
            file: at.file.path.clone(),
            line,
            column,
            source_text: Arc::clone(&at.file.text),
            span: at.span.clone().into(),
        });
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All problems, file by file from the top.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
        problems.dedup_by(|a, b| (&a.file, a.line, a.column, &a.message) == (&b.file, b.line, b.column, &b.message));
        problems
    }
}

/// The one of `known` that `found` was probably meant to be.
pub(super) fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(found, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len().max(found.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean …", or the list of what is possible.
pub(super) fn suggestion(found: &str, known: &[&str]) -> String {
    match nearest(found, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none to choose from".to_owned(),
        None => format!("possible here: {}", list(known)),
    }
}

/// `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
