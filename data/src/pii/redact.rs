//! Placeholders in place of personal data.

use super::{Detector, Finding, PiiKind};
use std::fmt::Write;

/// Replaces what is found in the texts of one example. The same value gets the same number throughout the example, so
/// that its text keeps its sense.
pub(crate) struct Redactor<'a> {
    detector: &'a Detector,
    seen: Vec<(PiiKind, String)>,
}

impl<'a> Redactor<'a> {
    pub fn new(detector: &'a Detector) -> Self {
        Self { detector, seen: Vec::new() }
    }

    /// What is in a text; and the text without it.
    pub fn redact(&mut self, text: &str) -> Option<(Vec<Finding>, String)> {
        let findings = self.detector.find(text);
        if findings.is_empty() {
            return None;
        }
        let mut redacted = String::with_capacity(text.len());
        let mut from = 0;
        for finding in &findings {
            let value = text.get(finding.range.clone()).unwrap_or_default();
            redacted.push_str(text.get(from..finding.range.start).unwrap_or_default());
            let number = self.number(&finding.kind, value);
            // Writing to a string does not fail.
            let _ = write!(redacted, "[{}_{number}]", finding.kind);
            from = finding.range.end;
        }
        redacted.push_str(text.get(from..).unwrap_or_default());
        Some((findings, redacted))
    }

    /// The number of a value among those of its kind.
    fn number(&mut self, kind: &PiiKind, value: &str) -> usize {
        let same = normal(kind, value);
        let mut number = 0;
        for (other, seen) in &self.seen {
            if other == kind {
                number += 1;
                if *seen == same {
                    return number;
                }
            }
        }
        self.seen.push((kind.clone(), same));
        number + 1
    }
}

/// How a value is told from others of its kind: however it is grouped, a number is the same.
fn normal(kind: &PiiKind, value: &str) -> String {
    match kind {
        PiiKind::Email => value.to_lowercase(),
        PiiKind::Iban | PiiKind::Card | PiiKind::Phone => {
            value.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_uppercase).collect()
        }
        _ => value.to_owned(),
    }
}
