//! What a check found, as text and as JSON.

use gap_format::escape::escaped;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};

/// How one line of the checklist came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Pass,
    /// It holds, with something that whoever is responsible should know.
    Warn,
    /// It cannot be known from the recipe and its lock.
    Unresolved,
    /// It does not hold.
    Fail,
}

impl Status {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Unresolved => "unresolved",
            Self::Fail => "fail",
        }
    }
}

/// The part of the checklist that a rule belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// GPUs, storage, network, monitoring.
    Infrastructure,
    /// Packages, frameworks, configurations.
    Software,
    /// Data sets.
    Data,
    /// Models and licences.
    Models,
    /// How the outcome is judged.
    Evaluation,
}

impl Group {
    /// All of them, in the order of the checklist.
    pub const ALL: [Self; 5] = [Self::Infrastructure, Self::Software, Self::Data, Self::Models, Self::Evaluation];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Infrastructure => "Infrastructure",
            Self::Software => "Software",
            Self::Data => "Data",
            Self::Models => "Models",
            Self::Evaluation => "Evaluation",
        }
    }
}

/// One finding of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Part of the checklist.
    pub group: Group,
    /// Name of the rule; stable from release to release.
    pub rule: &'static str,
    /// How it came out.
    pub status: Status,
    /// What it is about: an image, a job, a model; the whole recipe when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why it came out so.
    pub reason: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The findings of one rule while it runs.
#[derive(Debug)]
pub struct Findings {
    group: Group,
    rule: &'static str,
    lines: Vec<Line>,
}

impl Findings {
    /// For the rule of this name.
    pub const fn new(group: Group, rule: &'static str) -> Self {
        Self { group, rule, lines: Vec::new() }
    }

    /// Notes that it holds.
    pub fn pass(&mut self, subject: impl Into<Subject>, reason: impl Into<String>) {
        self.note(Status::Pass, subject.into(), reason.into(), None);
    }

    /// Notes that it holds, but…
    pub fn warn(&mut self, subject: impl Into<Subject>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.note(Status::Warn, subject.into(), reason.into(), Some(remedy.into()));
    }

    /// Notes that it cannot be known.
    pub fn unresolved(&mut self, subject: impl Into<Subject>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.note(Status::Unresolved, subject.into(), reason.into(), Some(remedy.into()));
    }

    /// Notes that it does not hold.
    pub fn fail(&mut self, subject: impl Into<Subject>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.note(Status::Fail, subject.into(), reason.into(), Some(remedy.into()));
    }

    /// Whether nothing was noted yet.
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The worst that was noted about `subject` so far.
    pub fn worst(&self, subject: &Subject) -> Option<Status> {
        self.lines.iter().filter(|line| line.subject == subject.0).map(|line| line.status).max()
    }

    /// All that was noted.
    pub fn into_lines(self) -> Vec<Line> {
        self.lines
    }

    fn note(&mut self, status: Status, subject: Subject, reason: String, remedy: Option<String>) {
        self.lines.push(Line { group: self.group, rule: self.rule, status, subject: subject.0, reason, remedy });
    }
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Option<String>);

impl Subject {
    /// The whole recipe.
    pub const RECIPE: Self = Self(None);

    /// An image.
    pub fn image(name: &str) -> Self {
        Self(Some(format!("image {name}")))
    }

    /// A job.
    pub fn job(name: &str) -> Self {
        Self(Some(format!("job {name}")))
    }

    /// A job's or step's configuration file.
    pub fn config(owner: &str, path: &str) -> Self {
        Self(Some(format!("{owner}, {path}")))
    }

    /// A model.
    pub fn model(name: &str) -> Self {
        Self(Some(format!("model {name}")))
    }

    /// A data set.
    pub fn dataset(name: &str) -> Self {
        Self(Some(format!("dataset {name}")))
    }

    /// A layer.
    pub fn layer(name: &str) -> Self {
        Self(Some(format!("layer {name}")))
    }
}

/// The whole checklist, worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the appliance.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How many lines came out how.
    pub summary: Summary,
    /// All lines, group by group.
    pub lines: Vec<Line>,
}

/// How many lines came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Lines that hold.
    pub pass: usize,
    /// Lines that hold, but…
    pub warn: usize,
    /// Lines that do not hold.
    pub fail: usize,
    /// Lines that cannot be known.
    pub unresolved: usize,
}

impl Report {
    /// A report of these lines; they are put in order.
    pub fn new(name: &str, version: &str, mut lines: Vec<Line>) -> Self {
        // The order of the rules within a group, and of the subjects within a rule, is that of the recipe.
        lines.sort_by_key(|line| line.group);
        let count = |status| lines.iter().filter(|line| line.status == status).count();
        let summary = Summary {
            pass: count(Status::Pass),
            warn: count(Status::Warn),
            fail: count(Status::Fail),
            unresolved: count(Status::Unresolved),
        };
        Self { name: name.to_owned(), version: version.to_owned(), summary, lines }
    }

    /// Whether something does not hold.
    pub const fn has_failed(&self) -> bool {
        self.summary.fail > 0
    }
}

impl fmt::Display for Report {
    /// The report for people: plain ASCII, the same for the same findings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in Group::ALL {
            writeln!(f, "{}", group.title())?;
            for line in self.lines.iter().filter(|line| line.group == group) {
                write_line(f, line)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{}", self.summary)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, warn, fail, unresolved } = self;
        write!(f, "{pass} pass, {warn} warn, {fail} fail, {unresolved} unresolved")
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
    let mut head = format!("  {:<10}  {:<18}", line.status.name(), line.rule);
    if let Some(subject) = &line.subject {
        write!(head, "  {}:", escaped(subject))?;
    } else {
        head.push(' ');
    }
    writeln!(f, "{head} {}", escaped(&line.reason))?;
    match &line.remedy {
        Some(remedy) => writeln!(f, "{:14}{:<18}  -> {}", "", "", escaped(remedy)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_grouped_and_nothing_in_it_commands_a_terminal() {
        let mut data = Findings::new(Group::Data, "splits");
        data.warn(Subject::dataset("a\u{1b}[2J"), "no test part", "split it");
        let mut models = Findings::new(Group::Infrastructure, "storage");
        models.pass(Subject::RECIPE, "enough");
        let report = Report::new("a", "1", data.into_lines().into_iter().chain(models.into_lines()).collect());
        let text = report.to_string();
        assert!(text.find("storage").unwrap() < text.find("splits").unwrap(), "{text}");
        assert!(text.contains("dataset a\\u{1b}[2J: no test part\n") && text.contains("-> split it"), "{text}");
        assert!(text.ends_with("1 pass, 1 warn, 0 fail, 0 unresolved\n"), "{text}");
        assert!(text.is_ascii() && !report.has_failed());
    }
}
