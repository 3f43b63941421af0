//! What `gapimage check` says of a recipe.

use crate::{
    fixture::{said, stdout},
    shipped::Shipped,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The lines of the checklist.
pub struct Checklist {
    lines: Vec<Value>,
}

impl Checklist {
    /// Checks a recipe; `good` is whether nothing in it fails.
    #[track_caller]
    pub fn of(shipped: &Shipped, good: bool) -> Self {
        let output = shipped.command("check").arg("--json").output().unwrap();
        assert_eq!(output.status.code(), Some(if good { 0 } else { 4 }), "{}", said(&output));
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        Self { lines: report["lines"].as_array().unwrap().clone() }
    }

    /// The rules with a line of this status.
    pub fn rules(&self, status: &str) -> BTreeSet<&str> {
        let with = self.lines.iter().filter(|line| line["status"] == status);
        with.map(|line| line["rule"].as_str().unwrap()).collect()
    }

    /// Wants a line of this rule and status that says `text`.
    #[track_caller]
    pub fn says(&self, rule: &str, status: &str, text: &str) {
        let of_rule: Vec<&Value> = self.lines.iter().filter(|line| line["rule"] == rule).collect();
        let found =
            of_rule.iter().any(|line| line["status"] == status && line["reason"].as_str().unwrap().contains(text));
        assert!(found, "no `{status}` of `{rule}` says `{text}`: {of_rule:#?}");
    }
}
