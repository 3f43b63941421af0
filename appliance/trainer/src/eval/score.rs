//! What an answer is worth by rules: exact match, an expression, a JSON Schema.

use super::job::{ExactMatch, JsonSchemaMetric, Metrics, RegexMetric};
use regex::Regex;
use serde_json::Value;
use std::{io, path::PathBuf};

/// The largest expression that is compiled, in bytes of its program.
const MAX_PROGRAM: usize = 10 << 20;

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The expression.
    #[error("`metrics.regex.pattern` is no expression: {0}")]
    Regex(#[from] regex::Error),
    /// The schema's file.
    #[error("the schema {} cannot be read: {source}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The schema.
    #[error("{} is no JSON Schema that stands by itself: {what}", path.display())]
    NoSchema {
        /// The file.
        path: PathBuf,
        /// The reason.
        what: String,
    },
}

/// The rules of a job, ready to use.
#[derive(Debug)]
pub struct Rules {
    exact: Option<ExactMatch>,
    regex: Option<Regex>,
    schema: Option<jsonschema::Validator>,
}

impl Rules {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn new(metrics: &Metrics) -> Result<Self, RuleError> {
        let regex =
            |RegexMetric { pattern }: &RegexMetric| regex::RegexBuilder::new(pattern).size_limit(MAX_PROGRAM).build();
        let schema = |JsonSchemaMetric { schema: path }: &JsonSchemaMetric| {
            let bytes = std::fs::read(path).map_err(|source| RuleError::Schema { path: path.clone(), source })?;
            let no_schema = |what: String| RuleError::NoSchema { path: path.clone(), what };
            let json: Value = serde_json::from_slice(&bytes).map_err(|error| no_schema(error.to_string()))?;
            jsonschema::validator_for(&json).map_err(|error| no_schema(error.to_string()))
        };
        Ok(Self {
            exact: metrics.exact_match,
            regex: metrics.regex.as_ref().map(regex).transpose()?,
            schema: metrics.json_schema.as_ref().map(schema).transpose()?,
        })
    }

    /// Each rule's name, and whether the answer keeps to it. A rule that needs a reference says nothing without one.
    #[must_use]
    pub fn judge(&self, answer: &str, reference: Option<&str>) -> Vec<(&'static str, bool)> {
        let mut found = Vec::new();
        if let (Some(exact), Some(reference)) = (&self.exact, reference) {
            found.push(("exact_match", normal(answer, *exact) == normal(reference, *exact)));
        }
        if let Some(regex) = &self.regex
            && let Some(fits) = fits(regex, answer, reference)
        {
            found.push(("regex", fits));
        }
        if let Some(schema) = &self.schema {
            let json = serde_json::from_str::<Value>(unfenced(answer));
            found.push(("json_schema", json.is_ok_and(|json| schema.is_valid(&json))));
        }
        found
    }
}

/// The answer with single spaces, and without what does not count.
fn normal(text: &str, exact: ExactMatch) -> String {
    let kept = |c: &char| !(exact.ignore_punctuation && c.is_ascii_punctuation());
    let text: String = text.chars().filter(kept).collect();
    let text = if exact.ignore_case { text.to_lowercase() } else { text };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the expression matches; with a group, whether it captures the same as in the reference.
fn fits(regex: &Regex, answer: &str, reference: Option<&str>) -> Option<bool> {
    if regex.captures_len() < 2 {
        return Some(regex.is_match(answer));
    }
    let captured =
        |text: &str| regex.captures(text).and_then(|found| found.get(1).map(|group| group.as_str().to_owned()));
    let reference = reference?;
    let wanted = captured(reference).unwrap_or_else(|| reference.trim().to_owned());
    Some(captured(answer).is_some_and(|found| found == wanted))
}

/// Models like to put JSON into a fenced block.
fn unfenced(answer: &str) -> &str {
    let answer = answer.trim();
    let inner = answer.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(answer, |inner| inner.strip_prefix("json").unwrap_or(inner).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(metrics: Value) -> Rules {
        Rules::new(&serde_json::from_value(metrics).unwrap()).unwrap()
    }

    #[test]
    fn what_does_not_count_is_left_out() {
        let strict = rules(json!({"exact_match": {}}));
        assert_eq!(strict.judge(" The  door\n", Some("The door")), [("exact_match", true)]);
        assert_eq!(strict.judge("the door.", Some("The door")), [("exact_match", false)]);
        assert_eq!(strict.judge("x", None), []);
        let loose = rules(json!({"exact_match": {"ignore_case": true, "ignore_punctuation": true}}));
        assert_eq!(loose.judge("the door.", Some("The door")), [("exact_match", true)]);
    }

    #[test]
    fn a_group_must_capture_what_it_captures_in_the_reference() {
        let rules = rules(json!({"regex": {"pattern": "Answer: (\\w+)"}}));
        assert_eq!(rules.judge("So. Answer: 7!", Some("Answer: 7")), [("regex", true)]);
        assert_eq!(rules.judge("So. Answer: 7!", Some("7")), [("regex", true)]);
        assert_eq!(rules.judge("So. Answer: 8", Some("7")), [("regex", false)]);
        assert_eq!(rules.judge("7", Some("7")), [("regex", false)]);
    }

    #[test]
    fn an_answer_must_be_json_that_fits_the_schema() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        std::fs::write(&path, json!({"type": "object", "required": ["a"]}).to_string()).unwrap();
        let rules = rules(json!({"json_schema": {"schema": path}}));
        for (answer, fits) in [("{\"a\": 1}", true), ("```json\n{\"a\": 1}\n```", true), ("{}", false), ("a", false)] {
            assert_eq!(rules.judge(answer, None), [("json_schema", fits)], "{answer}");
        }
    }

    #[test]
    fn rules_that_cannot_be_used_are_refused() {
        let metrics: Metrics = serde_json::from_value(json!({"regex": {"pattern": "("}})).unwrap();
        assert!(matches!(Rules::new(&metrics), Err(RuleError::Regex(_))));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        std::fs::write(&path, json!({"$ref": "http://localhost:1/x.json"}).to_string()).unwrap();
        let metrics: Metrics = serde_json::from_value(json!({"json_schema": {"schema": path}})).unwrap();
        assert!(matches!(Rules::new(&metrics), Err(RuleError::NoSchema { .. })));
    }
}
