//! What is to be evaluated: the job file of `gap-train eval`.

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The largest job file that is read, in bytes.
const MAX_JOB_BYTES: u64 = 1 << 20;

/// Why an evaluation job cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The file cannot be read.
    #[error("the evaluation job {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Not JSON, or a field that is unknown, missing or of another type.
    #[error("the evaluation job {} is not as docs/evaluation.md describes it: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Fields that do not fit together.
    #[error("the evaluation job cannot be run: `{param}`: {message}")]
    Invalid {
        /// The field.
        param: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// An evaluation job. Relative paths start at the directory of its file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationJob {
    /// Directory of the base model.
    pub model: PathBuf,
    /// JSON Lines with the examples, in the forms that training takes.
    pub data: PathBuf,
    /// Directory for what comes out.
    pub output: PathBuf,
    /// What the resampling and the order on rating sheets follow from.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Takes only so many examples, the first ones.
    #[serde(default)]
    pub limit: Option<usize>,
    /// The longest answer, in tokens.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Resamples behind each interval.
    #[serde(default = "resamples")]
    pub resamples: usize,
    /// Who answers, by name.
    pub candidates: BTreeMap<String, Candidate>,
    /// Pairs that are compared: the first is what the second is measured against. Without it every pair.
    #[serde(default)]
    pub compare: Option<Vec<(String, String)>>,
    /// What is measured.
    pub metrics: Metrics,
    /// Makes a sheet on which people rate answers.
    #[serde(default)]
    pub rating_sheet: Option<RatingSheet>,
}

/// Who answers: the base as it is, the base with an adapter, or answers that were recorded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Directory of a PEFT adapter.
    #[serde(default)]
    pub adapter: Option<PathBuf>,
    /// Where there is no such directory, the base itself is what was trained, and answers.
    #[serde(default)]
    pub or_whole: bool,
    /// JSON Lines with `id` and `answer`.
    #[serde(default)]
    pub recorded: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// How well the reference answers are predicted; not of recorded answers.
    #[serde(default)]
    pub perplexity: bool,
    /// The answer is the reference.
    #[serde(default)]
    pub exact_match: Option<ExactMatch>,
    /// The answer fits an expression.
    #[serde(default)]
    pub regex: Option<RegexMetric>,
    /// The answer is JSON that fits a schema.
    #[serde(default)]
    pub json_schema: Option<JsonSchemaMetric>,
    /// A model rates the answer.
    #[serde(default)]
    pub judge: Option<Judge>,
}

/// What counts as the same.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExactMatch {
    /// Capitals and small letters are the same.
    #[serde(default)]
    pub ignore_case: bool,
    /// Punctuation does not count.
    #[serde(default)]
    pub ignore_punctuation: bool,
}

/// An expression. With a capture group, what it captures in the answer must be what it captures in the reference.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexMetric {
    /// In the syntax of the crate `regex`.
    pub pattern: String,
}

/// A schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaMetric {
    /// A file with a JSON Schema that refers to no other.
    pub schema: PathBuf,
}

/// Who judges.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// Directory of the model; the base without it.
    #[serde(default)]
    pub model: Option<PathBuf>,
    /// Directory of an adapter for it.
    #[serde(default)]
    pub adapter: Option<PathBuf>,
}

/// A sheet on which people rate answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingSheet {
    /// The two candidates whose answers stand beside each other.
    pub between: (String, String),
    /// How many examples are drawn.
    #[serde(default = "sheet_examples")]
    pub examples: usize,
}

impl EvaluationJob {
    /// Reads a job file and checks it.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let io = |source| JobError::Io { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > MAX_JOB_BYTES {
            return Err(io(std::io::Error::other(format!("it has {bytes} bytes; at most {MAX_JOB_BYTES} are read"))));
        }
        let json = std::fs::read(path).map_err(io)?;
        let mut job: Self =
            serde_json::from_slice(&json).map_err(|source| JobError::Json { path: path.to_owned(), source })?;
        job.check()?;
        job.resolve(path.parent().unwrap_or_else(|| Path::new("")));
        Ok(job)
    }

    fn check(&self) -> Result<(), JobError> {
        let invalid = |param: &str, message: String| Err(JobError::Invalid { param: param.to_owned(), message });
        if self.candidates.is_empty() {
            return invalid("candidates", "names nobody; `{\"base\": {}}` is the base as it is".to_owned());
        }
        for (name, candidate) in &self.candidates {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            if !plain || name.starts_with('.') {
                return invalid("candidates", format!("{name:?} is no name; take letters, digits, `-`, `_` and `.`"));
            }
            if candidate.adapter.is_some() && candidate.recorded.is_some() {
                return invalid("candidates", format!("`{name}` has both an adapter and recorded answers"));
            }
            if candidate.or_whole && candidate.adapter.is_none() {
                return invalid("candidates", format!("`{name}` has `or_whole` without an `adapter`"));
            }
        }
        let metrics = &self.metrics;
        let judged = metrics.exact_match.is_some() || metrics.regex.is_some() || metrics.json_schema.is_some();
        if !(judged || metrics.perplexity || metrics.judge.is_some() || self.rating_sheet.is_some()) {
            return invalid("metrics", "measures nothing".to_owned());
        }
        for (param, range) in [("max_new_tokens", self.max_new_tokens), ("resamples", self.resamples)] {
            if !(1..=1_000_000).contains(&range) {
                return invalid(param, format!("is {range}; it must be 1 to 1000000"));
            }
        }
        let sheet = self.rating_sheet.iter().map(|sheet| &sheet.between);
        for (first, second) in self.compare.iter().flatten().chain(sheet) {
            for name in [first, second] {
                if !self.candidates.contains_key(name) {
                    return invalid("compare", format!("`{name}` is no candidate"));
                }
            }
            if first == second {
                return invalid("compare", format!("`{first}` is compared with itself"));
            }
        }
        Ok(())
    }

    fn resolve(&mut self, dir: &Path) {
        let resolve = |path: &mut PathBuf| *path = dir.join(&*path);
        [&mut self.model, &mut self.data, &mut self.output].into_iter().for_each(resolve);
        for candidate in self.candidates.values_mut() {
            candidate.adapter.iter_mut().chain(&mut candidate.recorded).for_each(resolve);
            let is_whole = |adapter: &mut PathBuf| candidate.or_whole && adapter.symlink_metadata().is_err();
            drop(candidate.adapter.take_if(is_whole));
        }
        self.metrics.json_schema.iter_mut().map(|metric| &mut metric.schema).for_each(resolve);
        if let Some(judge) = &mut self.metrics.judge {
            judge.model.iter_mut().chain(&mut judge.adapter).for_each(resolve);
        }
    }

    /// Whether candidates answer at all; perplexity alone needs no answers.
    #[must_use]
    pub const fn asks_for_answers(&self) -> bool {
        let Metrics { perplexity: _, exact_match, regex, json_schema, judge } = &self.metrics;
        exact_match.is_some()
            || regex.is_some()
            || json_schema.is_some()
            || judge.is_some()
            || self.rating_sheet.is_some()
    }

    /// The pairs that are compared.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let every = || {
            let names: Vec<&String> = self.candidates.keys().collect();
            let pairs = names.iter().enumerate().flat_map(|(index, first)| {
                names.iter().skip(index + 1).map(move |second| ((*first).clone(), (*second).clone()))
            });
            pairs.collect()
        };
        self.compare.clone().unwrap_or_else(every)
    }
}

const fn seed() -> u64 {
    42
}
const fn max_new_tokens() -> usize {
    256
}
const fn resamples() -> usize {
    2000
}
const fn sheet_examples() -> usize {
    30
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(more: Value) -> Result<EvaluationJob, JobError> {
        let mut job = json!({"model": "m", "data": "d.jsonl", "output": "o", "candidates": {"base": {}, "new": {"adapter": "a"}},
            "metrics": {"exact_match": {}}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("job.json"), job.to_string()).unwrap();
        EvaluationJob::read(&dir.path().join("job.json"))
    }

    #[test]
    fn every_pair_is_compared_and_paths_start_at_the_job() {
        let job = read(json!({})).unwrap();
        assert_eq!(job.pairs(), [("base".to_owned(), "new".to_owned())]);
        assert!(job.candidates["new"].adapter.as_ref().unwrap().is_absolute());
    }

    #[test]
    fn an_adapter_may_be_missing_only_where_the_model_may_have_been_trained_whole() {
        let new = |candidate: Value| read(json!({"candidates": {"new": candidate}})).unwrap().candidates["new"].clone();
        assert_eq!(new(json!({"adapter": "a", "or_whole": true})).adapter, None);
        // It is there.
        assert!(new(json!({"adapter": ".", "or_whole": true})).adapter.is_some());
        assert!(new(json!({"adapter": "a"})).adapter.is_some());
    }

    #[test]
    fn contradictions_are_named() {
        for (more, expected) in [
            (json!({"candidates": {}}), "names nobody"),
            (json!({"candidates": {"../x": {}}}), "is no name"),
            (json!({"candidates": {"x": {"adapter": "a", "recorded": "r"}}}), "both an adapter and recorded"),
            (json!({"candidates": {"x": {"or_whole": true}}}), "without an `adapter`"),
            (json!({"metrics": {}}), "measures nothing"),
            (json!({"compare": [["base", "old"]]}), "`old` is no candidate"),
            (json!({"compare": [["base", "base"]]}), "compared with itself"),
            (json!({"resamples": 0}), "`resamples`: is 0"),
            (json!({"metric": {}}), "unknown field `metric`"),
        ] {
            let found = read(more.clone()).unwrap_err().to_string();
            assert!(found.contains(expected), "{more}: {found}");
        }
    }
}
