//! Runs in the form that MLflow opens: a SQLite database and a directory of artifacts.
//!
//! The database has the tables of one early revision of MLflow's schema, and says so. MLflow brings older databases up to
//! its own revision when it opens them, so that the same file opens in versions of today and later ones. Paths are relative:
//! the directory can be carried anywhere, and MLflow is started in it.

use crate::digest;
use gap_contract::{Event, Lineage, Metrics, Output, Topic};
use rusqlite::{Connection, params};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The revision that the tables are of.
const REVISION: &str = "89d4b8295536";
const TABLES: &str = include_str!("mlflow/tables.sql");
/// The longest text that MLflow of that revision keeps as a parameter's value.
const MAX_PARAM: usize = 250;

/// Why runs cannot be written for MLflow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlflowError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file of the output directory is not as the contract says.
    #[error("{} is not as docs/jobs.md describes it: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// The database.
    #[error("the database {} cannot be written: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rusqlite::Error,
    },
    /// Something is there already.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// A file cannot be hashed.
    #[error(transparent)]
    Digest(#[from] digest::DigestError),
}

/// Writes the runs in these output directories as one experiment; whole or not at all.
///
/// # Errors
/// [`MlflowError`].
pub fn write(experiment: &str, outputs: &[PathBuf], to: &Path) -> Result<(), MlflowError> {
    if to.exists() {
        return Err(MlflowError::Exists(to.to_owned()));
    }
    let parent = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MlflowError::Io { path, source }
    };
    let staging = tempfile::Builder::new().prefix(".mlflow-").tempdir_in(parent).map_err(failed(parent))?;
    let runs = outputs.iter().map(|output| Run::read(output)).collect::<Result<Vec<_>, _>>()?;
    let path = staging.path().join("mlflow.db");
    database(&path, experiment, &runs).map_err(|source| MlflowError::Database { path, source })?;
    for run in &runs {
        let artifacts = staging.path().join(run.artifacts());
        for name in ["adapter", "model", "evaluation", "job.json", "lineage.json", "metrics.jsonl", "events.jsonl"] {
            copy(&run.output.join(name), &artifacts.join(name)).map_err(failed(&run.output.join(name)))?;
        }
    }
    readable_by_all(staging.path()).and_then(|()| fs::rename(staging.path(), to)).map_err(failed(to))?;
    // There is nothing left to take away.
    let _moved = staging.keep();
    fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed(parent))
}

fn readable_by_all(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// Copies a file or directory; nothing if it is not there.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(kind) = fs::symlink_metadata(from) else { return Ok(()) };
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_file() {
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(from, to)?;
        fs::File::open(to)?.sync_all()?;
    }
    Ok(())
}

/// One run, as it lies in an output directory.
struct Run {
    id: String,
    name: String,
    output: PathBuf,
    params: BTreeMap<String, String>,
    metrics: Vec<Metrics>,
    lineage: Option<Lineage>,
    /// Milliseconds since 1970.
    started: i64,
    ended: Option<i64>,
    status: &'static str,
    state: &'static str,
}

impl Run {
    fn read(output: &Path) -> Result<Self, MlflowError> {
        let files = Output::new(output);
        let job: Value = json(&files.job())?;
        let lineage = if files.lineage().exists() { Some(json::<Lineage>(&files.lineage())?) } else { None };
        let events: Vec<Event> = rows(&files.events())?;
        let mut hash = Sha256::new();
        for path in [files.job(), files.events()] {
            hash.update(digest::of_file(&path)?);
        }
        let id: String = hex::encode(hash.finalize()).chars().take(32).collect();
        let (status, state) = match events.last().map(|event| event.topic) {
            Some(Topic::Succeeded) => ("FINISHED", "succeeded"),
            Some(Topic::Failed) => ("FAILED", "failed"),
            Some(Topic::Stopped) => ("FAILED", "stopped"),
            _ => ("RUNNING", "running"),
        };
        let ended = events.last().filter(|_| status != "RUNNING").map(|event| event.created_at * 1000);
        let name = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
        let mut params = BTreeMap::new();
        flatten("", &job, &mut params);
        Ok(Self {
            id,
            name: name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            output: output.to_owned(),
            params,
            metrics: rows(&files.metrics())?,
            started: events.first().map_or(0, |event| event.created_at * 1000),
            ended,
            status,
            state,
            lineage,
        })
    }

    fn artifacts(&self) -> String {
        format!("artifacts/{}/artifacts", self.id)
    }

    fn tags(&self) -> Vec<(String, String)> {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut tags = vec![
            tag("mlflow.runName", &self.name),
            tag("mlflow.source.type", "JOB"),
            tag("mlflow.source.name", "job.json"),
            tag("gapimage.state", self.state),
        ];
        if let Some(lineage) = &self.lineage {
            tags.push(tag("gapimage.engine", &lineage.engine.name));
            tags.push(tag("gapimage.device", &lineage.engine.device));
            tags.push(tag("gapimage.base.name", &lineage.base.name));
            tags.push(tag("gapimage.base.digest", &lineage.base.digest));
            for data in &lineage.data {
                tags.push((format!("gapimage.data.{}", data.name), data.sha256.clone()));
            }
            for (name, version) in &lineage.engine.versions {
                tags.push((format!("gapimage.version.{name}"), version.clone()));
            }
        }
        tags
    }

    /// Every measurement: name, value, milliseconds since 1970, step.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts of tokens and milliseconds"
    )]
    fn measurements(&self) -> Vec<(String, f64, i64, i64)> {
        let mut found = Vec::new();
        let mut seconds = 0.0;
        for row in &self.metrics {
            if row.tokens_per_second > 0.0 {
                seconds += row.tokens as f64 / row.tokens_per_second;
            }
            let at = self.started + (seconds * 1000.0) as i64;
            let step = i64::try_from(row.step).unwrap_or(i64::MAX);
            let named = [
                ("train_loss", Some(row.train_loss)),
                ("valid_loss", row.valid_loss),
                ("learning_rate", Some(row.learning_rate)),
                ("grad_norm", Some(row.grad_norm)),
                ("tokens_per_second", Some(row.tokens_per_second)),
                ("memory", Some(row.memory as f64)),
                ("trained_tokens", Some(row.trained_tokens as f64)),
                ("rewards/chosen", row.rewards_chosen),
                ("rewards/rejected", row.rewards_rejected),
                ("rewards/accuracies", row.rewards_accuracies),
            ];
            let named =
                named.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value, at, step)));
            found.extend(named);
        }
        if let Some(lineage) = &self.lineage {
            let step = i64::try_from(lineage.trained.result_step).unwrap_or(i64::MAX);
            let at = lineage.finished_at * 1000;
            let measured = lineage.evaluation.iter();
            found.extend(measured.map(|entry| (format!("evaluation/{}", entry.metric), entry.value, at, step)));
        }
        found
    }
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, MlflowError> {
    let bytes = fs::read(path).map_err(|source| MlflowError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| MlflowError::Json { path: path.to_owned(), source })
}

/// The rows of a file of JSON Lines; none if it is not there, and without a row that a kill cut off.
fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, MlflowError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| MlflowError::Io { path: path.to_owned(), source })?,
    };
    let rows = bytes.split_inclusive(|&byte| byte == b'\n').filter(|row| row.ends_with(b"\n"));
    let rows = rows.map(serde_json::from_slice);
    rows.collect::<Result<_, _>>().map_err(|source| MlflowError::Json { path: path.to_owned(), source })
}

/// `lora: {r: 8}` becomes `lora.r` = `8`.
fn flatten(prefix: &str, json: &Value, into: &mut BTreeMap<String, String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, into);
            }
        }
        Value::String(text) => {
            into.insert(prefix.to_owned(), text.chars().take(MAX_PARAM).collect());
        }
        other => {
            into.insert(prefix.to_owned(), other.to_string().chars().take(MAX_PARAM).collect());
        }
    }
}

fn database(path: &Path, experiment: &str, runs: &[Run]) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO alembic_version VALUES (?1)", [REVISION])?;
    for (id, name, place) in [(0, "Default", "artifacts/default"), (1, experiment, "artifacts")] {
        let row = params![id, name, place];
        transaction.execute("INSERT INTO experiments VALUES (?1, ?2, ?3, 'active')", row)?;
    }
    for run in runs {
        transaction.execute(
            "INSERT INTO runs VALUES (?1, ?2, 'JOB', 'job.json', '', '', ?3, ?4, ?5, '', 'active', ?6, 1)",
            params![run.id, run.name, run.status, run.started, run.ended, run.artifacts()],
        )?;
        for (key, value) in &run.params {
            transaction.execute("INSERT INTO params VALUES (?1, ?2, ?3)", params![key, value, run.id])?;
        }
        for (key, value) in run.tags() {
            transaction.execute("INSERT INTO tags VALUES (?1, ?2, ?3)", params![key, value, run.id])?;
        }
        let mut latest = BTreeMap::new();
        for (key, value, at, step) in run.measurements() {
            let row = params![key, value, at, run.id, step];
            transaction.execute("INSERT OR REPLACE INTO metrics VALUES (?1, ?2, ?3, ?4, ?5, 0)", row)?;
            latest.insert(key, (value, at, step));
        }
        for (key, (value, at, step)) in latest {
            let row = params![key, value, at, step, run.id];
            transaction.execute("INSERT INTO latest_metrics VALUES (?1, ?2, ?3, ?4, 0, ?5)", row)?;
        }
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}
