//! `events.jsonl` and `metrics.jsonl`: rows are appended whole, and a row that a crash cut short is taken away before
//! others follow. A full disk ends no run: rows wait until there is room, and for a checkpoint all must be there.

use crate::error::{Failed, is_full, storage};
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
    events: Rows,
    metrics: Rows,
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
        Ok(Self {
            events: Rows::open(events_path)?,
            metrics: Rows::open(metrics_path)?,
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
        self.events.add(&event)
    }

    /// Adds the row of a step.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn metrics(&mut self, row: &Metrics) -> Result<(), Failed> {
        self.metrics.add(row)
    }

    /// Waits until all rows are on the disk.
    ///
    /// # Errors
    /// Where they cannot be put there.
    pub fn sync(&mut self) -> Result<(), Failed> {
        self.events.sync()?;
        self.metrics.sync()
    }
}

/// A file that grows by rows.
#[derive(Debug)]
struct Rows {
    file: File,
    path: PathBuf,
    /// What there was no room for yet.
    waiting: Vec<u8>,
}

impl Rows {
    fn open(path: PathBuf) -> Result<Self, Failed> {
        let file = OpenOptions::new().append(true).open(&path).map_err(storage("open", &path))?;
        Ok(Self { file, path, waiting: Vec::new() })
    }

    fn add(&mut self, row: &impl serde::Serialize) -> Result<(), Failed> {
        serde_json::to_writer(&mut self.waiting, row).map_err(|error| storage("write to", &self.path)(error.into()))?;
        self.waiting.push(b'\n');
        match self.write() {
            Err(error) if !is_full(&error) => Err(storage("write to", &self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes what waits, as far as there is room: a row may be written in parts.
    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.file.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written.min(self.waiting.len()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failed> {
        let synced = self.write().and_then(|()| self.file.sync_data());
        synced.map_err(storage("write to", &self.path))
    }
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
