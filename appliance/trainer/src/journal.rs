//! `events.jsonl` and `metrics.jsonl`: rows are appended whole, and a row that a crash cut short is taken away before
//! others follow.

use crate::error::{Failed, storage};
use gap_contract::{Event, Failure, Level, Metrics, Output, Topic};
use serde_json::{Map, Value};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970 by the machine's clock.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Both files of an output directory.
#[derive(Debug)]
pub struct Journal {
    events: File,
    events_path: PathBuf,
    metrics: File,
    metrics_path: PathBuf,
    count: u64,
    last: i64,
}

impl Journal {
    /// Opens both. Of the metrics, rows up to `step` are kept; with step 0 both files begin anew.
    ///
    /// # Errors
    /// Where a file cannot be read or written.
    pub fn open(output: &Output, step: u64) -> Result<Self, Failed> {
        let (events_path, metrics_path) = (output.events(), output.metrics());
        let events: Vec<Event> = if step > 0 { rows(&events_path)? } else { Vec::new() };
        let metrics: Vec<Metrics> = if step > 0 { rows(&metrics_path)? } else { Vec::new() };
        rewrite(&events_path, &events)?;
        rewrite(&metrics_path, &metrics.into_iter().filter(|row| row.step <= step).collect::<Vec<_>>())?;
        let append = |path: &Path| OpenOptions::new().append(true).open(path).map_err(storage("open", path));
        Ok(Self {
            events: append(&events_path)?,
            metrics: append(&metrics_path)?,
            events_path,
            metrics_path,
            count: events.len() as u64,
            last: events.last().map_or(0, |event| event.created_at),
        })
    }

    /// Notes what happened.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn event(&mut self, level: Level, topic: Topic, message: impl Into<String>, data: Value) -> Result<(), Failed> {
        self.note(level, topic, message.into(), data, None)
    }

    /// Notes why the run failed.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn failed(&mut self, failure: &Failure) -> Result<(), Failed> {
        self.note(Level::Error, Topic::Failed, failure.message.clone(), Value::Null, Some(failure.clone()))
    }

    fn note(
        &mut self,
        level: Level,
        topic: Topic,
        message: String,
        data: Value,
        error: Option<Failure>,
    ) -> Result<(), Failed> {
        let created_at = now();
        if created_at < self.last && topic != Topic::ClockJumped {
            let back = self.last - created_at;
            self.last = created_at;
            let message = format!("the machine's clock went back by {back} s; durations are not affected");
            self.note(Level::Warn, Topic::ClockJumped, message, serde_json::json!({ "seconds": back }), None)?;
        }
        self.last = created_at;
        self.count += 1;
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        let event = Event { id: format!("event-{}", self.count), created_at, level, message, topic, data, error };
        append(&mut self.events, &event).map_err(storage("write to", &self.events_path))
    }

    /// Adds the row of a step.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn metrics(&mut self, row: &Metrics) -> Result<(), Failed> {
        append(&mut self.metrics, row).map_err(storage("write to", &self.metrics_path))
    }

    /// Waits until all rows are on the disk.
    ///
    /// # Errors
    /// Where they cannot be put there.
    pub fn sync(&self) -> Result<(), Failed> {
        self.events.sync_data().map_err(storage("write to", &self.events_path))?;
        self.metrics.sync_data().map_err(storage("write to", &self.metrics_path))
    }
}

fn append(file: &mut File, row: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// The whole rows of a file; none where there is no file.
///
/// # Errors
/// Where it cannot be read.
pub fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failed> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(storage("read", path)(error)),
    }
}

fn rewrite(path: &Path, rows: &[impl serde::Serialize]) -> Result<(), Failed> {
    let mut bytes = Vec::new();
    for row in rows {
        bytes.extend(serde_json::to_vec(row).map_err(|error| storage("write", path)(error.into()))?);
        bytes.push(b'\n');
    }
    crate::files::replace(path, &bytes).map_err(storage("write", path))
}
