//! Evaluation: candidates answer examples, the answers are scored, and the scores compared.
//!
//! ```text
//! job → examples → answers (of base, adapters, records) → scores → summary → report, rating sheet, lineage
//! ```
//!
//! Answers are written as they come, and an interrupted evaluation goes on where it was. Everything that is random follows
//! from the job's seed.

mod answers;
mod bootstrap;
mod engine;
mod example;
mod job;
mod judge;
mod ratings;
mod report;
mod score;
mod summary;

pub use engine::EngineError;
pub use example::ExampleError;
pub use job::{EvaluationJob, JobError};
pub use ratings::{Ratings, SheetError};
pub use report::Report;
pub use score::RuleError;
pub use summary::{Compared, Measured};

use crate::digest::{self, DigestError};
use answers::{Answer, Written};
use engine::Engine;
use example::Example;
use gap_contract::{Evaluation, Lineage};
use job::Candidate;
use score::Rules;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use summary::Scores;

/// Files of a model directory that decide, beside its weights, what it is asked and where its answer ends.
const ASKED_WITH: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

/// Why an evaluation fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The examples or recorded answers.
    #[error(transparent)]
    Examples(#[from] ExampleError),
    /// A model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A rating sheet.
    #[error(transparent)]
    Sheet(#[from] SheetError),
    /// A digest could not be computed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Recorded answers that answer nothing that was asked.
    #[error("none of the answers in {} has the id of an example in {}", recorded.display(), data.display())]
    OtherAnswers {
        /// The recorded answers.
        recorded: PathBuf,
        /// The examples.
        data: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl EvaluationError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Runs an evaluation. `sheets` are filled-in rating sheets; `progress` is told how far who is.
///
/// # Errors
/// [`EvaluationError`].
pub fn evaluate(
    job: &EvaluationJob,
    sheets: &[PathBuf],
    mut progress: impl FnMut(&str, usize, usize),
) -> Result<Report, EvaluationError> {
    let rules = Rules::new(&job.metrics)?;
    let examples = example::read(&job.data, job.limit)?;
    let answers_dir = job.output.join("answers");
    fs::create_dir_all(&answers_dir).map_err(EvaluationError::io(&answers_dir))?;
    let models = Models::load(job)?;

    let mut scores = Scores::default();
    let mut answers = BTreeMap::new();
    for (name, candidate) in &job.candidates {
        let own = models.answers(job, name, candidate, &examples, &mut progress)?;
        scores.add(name, &examples, &own, &rules);
        answers.insert(name.clone(), own);
    }
    let (resamples, seed) = (job.resamples, job.seed);
    let compared =
        job.pairs().iter().flat_map(|(first, second)| scores.compared(first, second, resamples, seed)).collect();
    let answer = |name: &str, id: &str| Some(answers.get(name)?.get(id)?.answer.clone());
    let key = job.output.join("sheet.key.json");
    let ratings = (!sheets.is_empty()).then(|| ratings::read(&key, sheets, &answer, resamples, seed)).transpose()?;
    let report = Report {
        version: 1,
        base: models.base.clone(),
        data: job.data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        data_sha256: digest::of_file(&job.data)?,
        seed,
        measured: scores.measured(resamples, seed),
        compared,
        ratings,
        examples: report::examples(&examples, &answers),
    };
    report.write(&job.output).map_err(EvaluationError::io(&job.output))?;
    for (name, candidate) in &job.candidates {
        into_lineage(job, candidate, &report, name)?;
    }
    // It comes last: an earlier sheet that is in its way takes nothing else away.
    if let Some(sheet) = &job.rating_sheet
        && sheets.is_empty()
    {
        ratings::write(&job.output, &sheet.between, &examples, &answer, sheet.examples, seed)?;
    }
    Ok(report)
}

/// The models of a job, as far as they are needed.
struct Models {
    engine: Option<Engine>,
    judge: Option<Engine>,
    base: Option<String>,
}

impl Models {
    fn load(job: &EvaluationJob) -> Result<Self, EvaluationError> {
        let judged = job.metrics.judge.as_ref();
        let needed = job.candidates.values().any(|candidate| candidate.recorded.is_none())
            || judged.is_some_and(|judge| judge.model.is_none());
        let engine = needed.then(|| Engine::load(&job.model)).transpose()?;
        let base = needed.then(|| digest::of_model(&job.model)).transpose()?;
        let judge = judged.and_then(|judge| judge.model.as_deref()).map(Engine::load).transpose()?;
        Ok(Self { engine, judge, base })
    }

    /// The answers of one candidate: recorded, found again, or given now.
    fn answers(
        &self,
        job: &EvaluationJob,
        name: &str,
        candidate: &Candidate,
        examples: &[Example],
        progress: &mut impl FnMut(&str, usize, usize),
    ) -> Result<BTreeMap<String, Answer>, EvaluationError> {
        let path = job.output.join("answers").join(format!("{name}.jsonl"));
        let of = self.identity(job, candidate)?;
        let (mut written, mut answers) = Written::open(&path, &of).map_err(EvaluationError::io(&path))?;
        let recorded = candidate.recorded.as_deref().map(answers::recorded).transpose()?;
        let adapter = match (&self.engine, &candidate.adapter) {
            (Some(engine), Some(dir)) => Some(engine.adapter(dir)?),
            _ => None,
        };
        let judge = job.metrics.judge.as_ref();
        let judge_engine = self.judge.as_ref().or(self.engine.as_ref()).filter(|_| judge.is_some());
        let judge_adapter = match (judge_engine, judge.and_then(|judge| judge.adapter.as_ref())) {
            (Some(engine), Some(dir)) => Some(engine.adapter(dir)?),
            _ => None,
        };
        for (index, example) in examples.iter().enumerate() {
            progress(name, index, examples.len());
            if answers.contains_key(&example.id) {
                continue;
            }
            let mut answer =
                Answer { id: example.id.clone(), answer: String::new(), loss: None, tokens: None, judged: None };
            match (&recorded, &self.engine) {
                (Some(recorded), _) => match recorded.get(&example.id) {
                    Some(text) => answer.answer.clone_from(text),
                    None => continue,
                },
                (None, Some(engine)) => {
                    if job.asks_for_answers() && example.asks() {
                        answer.answer = engine.answer(adapter.as_ref(), example, job.max_new_tokens)?;
                    }
                    if job.metrics.perplexity
                        && let Some(predicted) = engine.predict(adapter.as_ref(), example)?
                    {
                        (answer.loss, answer.tokens) = (Some(predicted.loss), Some(predicted.tokens));
                    }
                }
                (None, None) => {}
            }
            if let Some(engine) = judge_engine.filter(|_| example.asks()) {
                let asked = judge::ask(example, &answer.answer);
                answer.judged = judge::ratings(&engine.answer(judge_adapter.as_ref(), &asked, judge::LONGEST)?);
            }
            written.add(&answer).map_err(EvaluationError::io(written.path()))?;
            answers.insert(answer.id.clone(), answer);
        }
        progress(name, examples.len(), examples.len());
        match &candidate.recorded {
            Some(recorded) if answers.is_empty() => {
                Err(EvaluationError::OtherAnswers { recorded: recorded.clone(), data: job.data.clone() })
            }
            _ => Ok(answers),
        }
    }

    /// A digest over everything that decides about a candidate's answers.
    fn identity(&self, job: &EvaluationJob, candidate: &Candidate) -> Result<String, EvaluationError> {
        let mut hash = Sha256::new();
        let mut add = |part: String| hash.update(format!("{part}\n"));
        add(digest::of_file(&job.data)?);
        let asked = (job.asks_for_answers(), job.metrics.perplexity);
        add(format!("{} {:?} {asked:?}", job.max_new_tokens, self.base));
        if self.base.is_some() {
            add(digest::of_files(&job.model, &ASKED_WITH)?);
        }
        if let Some(judge) = &job.metrics.judge {
            add(format!("judge {:?}", judge.model.as_deref().map(digest::of_model).transpose()?));
            if let Some(model) = &judge.model {
                add(digest::of_files(model, &ASKED_WITH)?);
            }
            add(adapter_digest(judge.adapter.as_deref())?);
        }
        add(adapter_digest(candidate.adapter.as_deref())?);
        if let Some(recorded) = &candidate.recorded {
            add(digest::of_file(recorded)?);
        }
        Ok(hex::encode(hash.finalize()))
    }
}

fn adapter_digest(dir: Option<&Path>) -> Result<String, DigestError> {
    let Some(dir) = dir else { return Ok("none".to_owned()) };
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(|name| digest::of_file(&dir.join(name)));
    let [config, weights] = files;
    Ok(format!("{} {}", config?, weights?))
}

/// Writes what was measured on an adapter, or on the base, into the lineage beside it, if that is this adapter's or model's.
/// Earlier numbers of the same metric on the same data are replaced.
fn into_lineage(
    job: &EvaluationJob,
    candidate: &Candidate,
    report: &Report,
    name: &str,
) -> Result<(), EvaluationError> {
    if candidate.recorded.is_some() {
        return Ok(());
    }
    let dir = candidate.adapter.as_ref().unwrap_or(&job.model);
    let Some(path) = dir.parent().map(|dir| dir.join("lineage.json")).filter(|path| path.is_file()) else {
        return Ok(());
    };
    let wrong = |error: serde_json::Error| EvaluationError::Io { path: path.clone(), source: io::Error::other(error) };
    let json = fs::read(&path).map_err(EvaluationError::io(&path))?;
    let mut lineage: Lineage = serde_json::from_slice(&json).map_err(wrong)?;
    for file in weights(dir, candidate).map_err(EvaluationError::io(dir))? {
        let own = digest::of_file(&file)?;
        if !lineage.result.values().any(|digest| *digest == own) {
            return Ok(());
        }
    }
    for measured in report.measured.iter().filter(|measured| measured.candidate == name) {
        lineage.evaluation.retain(|old| old.metric != measured.metric || old.data_sha256 != report.data_sha256);
        lineage.evaluation.push(Evaluation {
            metric: measured.metric.clone(),
            value: measured.value,
            interval: measured.interval,
            data_sha256: report.data_sha256.clone(),
            examples: measured.examples as u64,
        });
    }
    let json = serde_json::to_vec_pretty(&lineage).map_err(wrong)?;
    put(&path, &json).map_err(EvaluationError::io(&path))
}

/// The files with the weights of an adapter, or of a base.
fn weights(dir: &Path, candidate: &Candidate) -> io::Result<Vec<PathBuf>> {
    if candidate.adapter.is_some() {
        return Ok(vec![dir.join("adapter_model.safetensors")]);
    }
    let files = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect())
}

/// Writes a file that is there whole or as it was before.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    use std::os::unix::fs::PermissionsExt;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".new-").permissions(fs::Permissions::from_mode(0o644)).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
