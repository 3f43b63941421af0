//! What was found, without saying it.

use super::PiiKind;
use crate::Place;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was found of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PiiReport {
    /// Finds of each kind, by its name.
    pub counts: BTreeMap<String, u64>,
    /// Examples with at least one find.
    pub examples: u64,
    /// The first finds of each kind.
    pub samples: Vec<PiiSample>,
}

/// A find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PiiSample {
    /// What it is.
    pub kind: PiiKind,
    /// The row.
    pub place: Place,
    /// The field.
    pub field: String,
    /// Its shape: letters as `a`, digits as `0`, signs as they are, and no more than 40 of them. Of secrets only the
    /// length.
    pub shape: String,
}

impl PiiReport {
    /// Adds a find; `limit` samples of each kind are kept.
    pub(crate) fn add(&mut self, sample: PiiSample, limit: usize) {
        let count = self.counts.entry(sample.kind.to_string()).or_default();
        *count += 1;
        if *count <= limit as u64 {
            self.samples.push(sample);
        }
    }

    /// `3 EMAIL, 1 PHONE`.
    pub fn summary(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    }
}

/// The shape of a value.
pub(crate) fn shape(kind: &PiiKind, value: &str) -> String {
    let characters = value.chars().count();
    if matches!(kind, PiiKind::Secret | PiiKind::Own(_)) {
        return format!("{characters} characters");
    }
    let shown = value.chars().take(40).map(|character| match character {
        _ if character.is_numeric() => '0',
        _ if character.is_alphabetic() => 'a',
        _ if character.is_control() => ' ',
        _ => character,
    });
    shown.collect()
}
