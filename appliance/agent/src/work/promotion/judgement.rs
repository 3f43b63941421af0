//! Whether what an evaluation measured meets what the release demands.
//!
//! The evaluation is a job of the signed release: what it runs and what it measures was decided there. It is believed about
//! one model only: the one that it was started with.

use crate::work::{
    Work,
    catalog::ImageError,
    left::Left,
    order::{DataOrder, ModelOrder, Order},
};
use gap_handover::declared::{Acceptance, Criterion};
use gap_jobs::{Job, JobId, Kind, QueueError, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fs::File, io, path::Path};

/// What an evaluation leaves behind (docs/evaluation.md).
const REPORT: &str = "report.json";
/// Longest report that is read, in bytes: every answer is in it.
const MAX_REPORT: u64 = 256 << 20;
/// What an evaluation calls the model that may be promoted.
const CANDIDATE: &str = "new";
/// The file of a test set that is measured on.
const TEST_FILE: &str = "test.jsonl";

/// What was demanded, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The metric.
    pub metric: String,
    /// `<`, `<=`, `>=` or `>`.
    pub comparison: String,
    /// What the value is compared with.
    pub bound: f64,
    /// What was measured; nothing where the evaluation did not.
    pub value: Option<f64>,
    /// Whether it holds.
    pub is_met: bool,
}

/// Why an evaluation says nothing about a model.
#[derive(Debug, thiserror::Error)]
pub enum Unjudged {
    /// The release demands nothing.
    #[error("the release says by nothing what a model is judged: its recipe needs [acceptance] with criteria")]
    NothingDemanded,
    /// It is none, or did not end well.
    #[error("the job {job} is no evaluation that counts: {reason}")]
    NoEvaluation {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The data that is measured on cannot be looked at.
    #[error("the test set of the release: {0}")]
    TestSet(#[from] ImageError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// The part of a report that counts here.
#[derive(Debug, Deserialize)]
struct Report {
    version: u64,
    data_sha256: String,
    measured: Vec<Measured>,
}

#[derive(Debug, Deserialize)]
struct Measured {
    candidate: String,
    metric: String,
    value: f64,
}

impl Work {
    /// What the release demands of this model, and what the job measured.
    ///
    /// # Errors
    /// [`Unjudged`].
    pub fn judge(&self, model: &ModelOrder, evaluation: &JobId) -> Result<Vec<Finding>, Unjudged> {
        let acceptance = self.catalog.declared.acceptance.as_ref().filter(|demanded| !demanded.criteria.is_empty());
        let acceptance = acceptance.ok_or(Unjudged::NothingDemanded)?;
        let job = self.queue().job(evaluation)?;
        let refused = |reason: String| Unjudged::NoEvaluation { job: evaluation.clone(), reason };
        let order = order_of(&job, model).map_err(refused)?;
        let report = read(&self.storage.output(job.id.as_str())).map_err(refused)?;
        match self.test_set(acceptance)? {
            Some(digest) if digest != report.data_sha256 => {
                let name = acceptance.test_set.as_deref().unwrap_or_default();
                return Err(refused(format!("it did not measure on {TEST_FILE} of the data set `{name}`")));
            }
            None if matches!(order.training, Some(DataOrder::File(_))) => {
                return Err(refused("it measured on an uploaded file, and not on data of the release".to_owned()));
            }
            _ => {}
        }
        Ok(acceptance.criteria.iter().map(|criterion| finding(criterion, &report.measured)).collect())
    }

    /// SHA-256 of the examples that the release wants to be measured on.
    fn test_set(&self, acceptance: &Acceptance) -> Result<Option<String>, ImageError> {
        let Some(name) = &acceptance.test_set else { return Ok(None) };
        let unknown = || ImageError::Unknown(name.clone());
        let place = self.catalog.declared.dataset(name).ok_or_else(unknown)?;
        let path = self.catalog.place(place)?.join(TEST_FILE);
        let failed = |error: io::Error| ImageError::Mount { image: place.image.clone(), reason: error.to_string() };
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path).map_err(failed)?, &mut hash).map_err(failed)?;
        Ok(Some(hex::encode(hash.finalize())))
    }
}

/// What the job was told to do, if it is an evaluation of this model that ended well and that nobody meddled with.
fn order_of(job: &Job, model: &ModelOrder) -> Result<Order, String> {
    if job.kind != Kind::Eval {
        return Err(format!("it is of the kind `{}`, and not `eval`", job.kind.name()));
    }
    if job.state != State::Succeeded {
        return Err(format!("its state is `{}`", job.state.name()));
    }
    let order: Order =
        serde_json::from_str(&job.request).map_err(|error| format!("its order is not understood: {error}"))?;
    let is_same = |measured: &ModelOrder| measured.base == model.base && measured.trained == model.trained;
    if !order.model.as_ref().is_some_and(is_same) {
        return Err(format!("it did not measure the model `{}`", model.name));
    }
    if !order.env.is_empty() {
        return Err("it was given variables, which can change what a program does".to_owned());
    }
    Ok(order)
}

fn read(output: &Path) -> Result<Report, String> {
    let text = Left::open(output)
        .and_then(|left| left.read(REPORT.as_ref(), MAX_REPORT))
        .map_err(|error| format!("it left no {REPORT}: {error}"))?;
    let report: Report = serde_json::from_slice(&text).map_err(|error| format!("its {REPORT}: {error}"))?;
    if report.version == 1 {
        Ok(report)
    } else {
        Err(format!("its {REPORT} has version {}, and this agent knows version 1", report.version))
    }
}

fn finding(criterion: &Criterion, measured: &[Measured]) -> Finding {
    let mut values = measured.iter().filter(|one| one.candidate == CANDIDATE && one.metric == criterion.metric);
    // What is told twice is not known.
    let value = values.next().filter(|_| values.next().is_none()).map(|one| one.value);
    Finding {
        metric: criterion.metric.clone(),
        comparison: criterion.comparison.sign().to_owned(),
        bound: criterion.bound,
        value,
        is_met: value.is_some_and(|value| criterion.comparison.holds(value, criterion.bound)),
    }
}

impl Finding {
    /// As a person reads it.
    pub fn sentence(&self) -> String {
        let value = self.value.map_or_else(|| "was not measured".to_owned(), |value| format!("is {value}"));
        format!("{} {value}, and must be {} {}", self.metric, self.comparison, self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_handover::declared::Comparison;

    fn measured(candidate: &str, metric: &str, value: f64) -> Measured {
        Measured { candidate: candidate.into(), metric: metric.into(), value }
    }

    #[test]
    fn only_what_was_measured_once_on_the_new_model_counts() {
        let criterion = Criterion { metric: "exact_match".into(), comparison: Comparison::AtLeast, bound: 0.5 };
        let found = |measured: &[Measured]| {
            let finding = finding(&criterion, measured);
            (finding.value, finding.is_met)
        };
        assert_eq!(found(&[measured("base", "exact_match", 0.9), measured("new", "regex", 0.9)]), (None, false));
        assert_eq!(
            found(&[measured("base", "exact_match", 0.1), measured("new", "exact_match", 0.5)]),
            (Some(0.5), true)
        );
        assert_eq!(found(&[measured("new", "exact_match", 0.4)]), (Some(0.4), false));
        let twice = [measured("new", "exact_match", 0.9), measured("new", "exact_match", 0.9)];
        assert_eq!(found(&twice), (None, false));
    }
}
