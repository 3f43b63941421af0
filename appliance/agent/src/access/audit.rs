//! The audit log: every request that changes something, before it is carried out, each record chained to the last.
//!
//! A record is a line of JSON whose `hash` is the SHA-256 of the line without it (the JSON object with `hash` empty). It
//! holds the hash of the record before as `previous`, so that none can be changed, left out or added without changing
//! all after it. Who holds the newest hash from elsewhere can prove that nothing was cut off either.

use gap_format::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 64 << 10;
/// Records that are kept in memory while there is no file yet.
const MAX_HELD: usize = 1000;

/// What happened, without its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, in milliseconds since 1970 by the machine's clock.
    pub at: i64,
    /// Name of the token.
    pub who: String,
    /// Its role.
    pub role: String,
    /// Address that the request came from.
    pub from: String,
    /// What was asked for: method and path.
    pub what: String,
    /// `asked` before it is carried out; `refused` and the status when it was not.
    pub outcome: String,
}

/// A record in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 1.
    pub number: u64,
    /// What happened.
    pub entry: Entry,
    /// Hash of the record before; empty in the first one.
    pub previous: String,
    /// SHA-256 of this record with an empty `hash`.
    pub hash: String,
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file.
    #[error("the audit log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The chain does not hold.
    #[error("the audit log {} was changed: record {number} does not follow from the one before", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The number of the line.
        number: u64,
    },
    /// Nothing can be kept any more.
    #[error("there is no room for the audit log, so nothing can be changed")]
    Full,
}

/// The log: in memory until there is a file for it.
#[derive(Debug, Default)]
pub struct Audit(Mutex<Chain>);

#[derive(Debug, Default)]
struct Chain {
    file: Option<File>,
    path: PathBuf,
    held: Vec<Entry>,
    number: u64,
    last: String,
}

impl Record {
    fn after(number: u64, previous: &str, entry: Entry) -> Result<Self, serde_json::Error> {
        let mut record = Self { number, entry, previous: previous.to_owned(), hash: String::new() };
        record.hash = record.digest()?;
        Ok(record)
    }

    fn digest(&self) -> Result<String, serde_json::Error> {
        let bare = Self { hash: String::new(), ..self.clone() };
        Ok(Digest::of(&serde_json::to_vec(&bare)?).to_hex())
    }
}

impl Audit {
    /// Goes on with the log in this file, checks it, and writes down what was held in memory.
    ///
    /// # Errors
    /// [`AuditError`]; [`AuditError::Broken`] is told once, the file is set aside and the next call begins another.
    pub fn attach(&self, path: &Path) -> Result<(), AuditError> {
        let mut chain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| AuditError::File { path: path.to_owned(), source };
        let (number, last) = match check(path) {
            Ok(end) => end,
            Err(error @ AuditError::Broken { .. }) => {
                let aside = path.with_extension(format!("broken-{}", gap_jobs::identifier::random("log")));
                std::fs::rename(path, aside).map_err(failed)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        let held = std::mem::take(&mut chain.held);
        *chain = Chain { file: Some(file), path: path.to_owned(), held: Vec::new(), number, last };
        held.into_iter().try_for_each(|entry| chain.write(entry))
    }

    /// Writes an entry, which is on the disk when this returns.
    ///
    /// # Errors
    /// [`AuditError`]; what was to be recorded must not be done then.
    pub fn record(&self, entry: Entry) -> Result<(), AuditError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(entry)
    }

    /// At most `limit` records after number `after`, oldest first.
    ///
    /// # Errors
    /// [`AuditError`] when the file cannot be read.
    pub fn read(&self, after: u64, limit: usize) -> Result<Vec<Record>, AuditError> {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner).path.clone();
        if path.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        let failed = |source| AuditError::File { path: path.clone(), source };
        let mut records = Vec::new();
        for line in BufReader::new(File::open(&path).map_err(failed)?).lines() {
            let record: Record = serde_json::from_str(&line.map_err(failed)?).map_err(|error| failed(error.into()))?;
            if record.number > after {
                records.push(record);
            }
            if records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }
}

impl Chain {
    fn write(&mut self, entry: Entry) -> Result<(), AuditError> {
        let Some(file) = &mut self.file else {
            if self.held.len() >= MAX_HELD {
                return Err(AuditError::Full);
            }
            self.held.push(entry);
            return Ok(());
        };
        let write = || -> io::Result<Record> {
            let record = Record::after(self.number.saturating_add(1), &self.last, entry)?;
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            file.write_all(&line)?;
            file.sync_data()?;
            Ok(record)
        };
        let record = write().map_err(|source| AuditError::File { path: self.path.clone(), source })?;
        self.number = record.number;
        self.last = record.hash;
        Ok(())
    }
}

/// Follows the chain in a file to its end. A last line that was cut off by a power cut is removed: what it would have
/// recorded was not done. Returns the last number and hash.
fn check(path: &Path) -> Result<(u64, String), AuditError> {
    let failed = |source| AuditError::File { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, String::new())),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(&file);
    let (mut number, mut last, mut good) = (0_u64, String::new(), 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if len == 0 {
            return Ok((number, last));
        }
        if line.last() != Some(&b'\n') {
            file.set_len(good).map_err(failed)?;
            return Ok((number, last));
        }
        let broken = || AuditError::Broken { path: path.to_owned(), number: number.saturating_add(1) };
        if len > MAX_LINE {
            return Err(broken());
        }
        let record: Record = serde_json::from_slice(&line).map_err(|_| broken())?;
        let follows = record.number == number.saturating_add(1)
            && record.previous == last
            && record.digest().is_ok_and(|digest| digest == record.hash);
        if !follows {
            return Err(broken());
        }
        number = record.number;
        last = record.hash;
        good = good.saturating_add(u64::try_from(len).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: &str) -> Entry {
        Entry {
            at: 1,
            who: "first".into(),
            role: "admin".into(),
            from: "192.0.2.1".into(),
            what: what.into(),
            outcome: "asked".into(),
        }
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::default();
        audit.record(entry("before there was a disk")).unwrap();
        audit.attach(&path).unwrap();
        for what in ["POST /a", "POST /b"] {
            audit.record(entry(what)).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn a_log_goes_on_after_a_restart() {
        let (_directory, path) = log();
        let audit = Audit::default();
        audit.attach(&path).unwrap();
        audit.record(entry("POST /c")).unwrap();
        let records = audit.read(1, 10).unwrap();
        let whats: Vec<&str> = records.iter().map(|record| record.entry.what.as_str()).collect();
        assert_eq!(whats, ["POST /a", "POST /b", "POST /c"]);
        assert_eq!(records[1].previous, records[0].hash);
    }

    #[test]
    fn what_is_changed_left_out_or_added_is_found() {
        let changes: [fn(&str) -> String; 4] = [
            |text| text.replace("POST /a", "POST /x"),
            |text| text.lines().filter(|line| !line.contains("/a")).map(|line| format!("{line}\n")).collect(),
            |text| format!("{text}{}\n", text.lines().last().unwrap()),
            |text| format!("{text}no json\n"),
        ];
        for change in changes {
            let (_directory, path) = log();
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, change(&text)).unwrap();
            let audit = Audit::default();
            assert!(matches!(audit.attach(&path), Err(AuditError::Broken { .. })));
            audit.attach(&path).unwrap();
            assert_eq!(audit.read(0, 10).unwrap(), []);
        }
    }

    #[test]
    fn a_line_that_a_power_cut_left_behind_is_no_change() {
        let (_directory, path) = log();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"number\":4,");
        std::fs::write(&path, text).unwrap();
        let audit = Audit::default();
        audit.attach(&path).unwrap();
        audit.record(entry("POST /c")).unwrap();
        assert_eq!(audit.read(0, 10).unwrap().len(), 4);
    }
}
