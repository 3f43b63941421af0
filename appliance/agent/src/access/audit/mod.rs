//! The audit log: every request that changes something, before it is carried out, each record chained to the last.
//!
//! A record is a line of JSON whose `hash` is the SHA-256 of the line without it (the JSON object with `hash` empty). It
//! holds the hash of the record before as `previous`, so that none can be changed, left out or added without changing
//! all after it. Who holds the newest hash from elsewhere can prove that nothing was cut off either.
//!
//! One thread writes: what has come while it waited for the disk goes there in one write, and whoever asked waits without
//! holding a thread.

mod chain;

use chain::{Chain, Shown};
use gap_format::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// Most records that wait for the disk; who comes then waits for a place.
const MAX_WAITING: usize = 256;
/// Most records of one write.
const MAX_BATCH: usize = 64;

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
    /// `asked` before it is carried out. Then, in a record of its own, `made` and the name of what was made (of a token also
    /// role and name), or `refused` or `failed` and the status when it was not.
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
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The file.
    #[error("the audit log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer, for all who waited for it.
        source: Arc<io::Error>,
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
    /// Nobody writes any more.
    #[error("the thread that writes the audit log has ended, so nothing can be changed; restart the appliance")]
    Ended,
}

impl AuditError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source: Arc::new(source) }
    }
}

/// The log: in memory until there is a file for it.
pub struct Audit {
    chain: Arc<Mutex<Chain>>,
    shown: Shown,
    queue: mpsc::Sender<Waiting>,
}

/// A record that is to be written, and who waits for it.
struct Waiting {
    entry: Entry,
    answer: oneshot::Sender<Result<(), AuditError>>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("shown", &self.shown).finish_non_exhaustive()
    }
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
    /// Begins a log in memory, with the thread that writes it.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had.
    pub fn start() -> io::Result<Self> {
        let chain = Chain::default();
        let (shown, chain) = (chain.shown(), Arc::new(Mutex::new(chain)));
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let written = Arc::clone(&chain);
        thread::Builder::new().name("audit".to_owned()).spawn(move || write_down(&written, waiting))?;
        Ok(Self { chain, shown, queue })
    }

    /// Goes on with the log in this file, checks it, and writes down what was held in memory. Blocks.
    ///
    /// # Errors
    /// [`AuditError`]; [`AuditError::Broken`] is told once, the file is set aside and the next call begins another.
    pub fn attach(&self, path: &Path) -> Result<(), AuditError> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).attach(path)
    }

    /// Writes an entry, which is on the disk when this returns. Blocks: it is for threads that are about to do one thing
    /// for a while, as that of a job.
    ///
    /// # Errors
    /// [`AuditError`]; what was to be recorded must not be done then.
    pub fn record(&self, entry: Entry) -> Result<(), AuditError> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).append(vec![entry])
    }

    /// Writes an entry, which is on the disk when this is done.
    ///
    /// # Errors
    /// As for [`Self::record`].
    pub async fn keep(&self, entry: Entry) -> Result<(), AuditError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { entry, answer }).await.map_err(|_| AuditError::Ended)?;
        answered.await.map_err(|_| AuditError::Ended)?
    }

    /// At most `limit` records after number `after`, oldest first. What is not on the disk yet is not among them.
    ///
    /// # Errors
    /// [`AuditError`] when the file cannot be read.
    pub fn read(&self, after: u64, limit: usize) -> Result<Vec<Record>, AuditError> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((path, len)) = shown else { return Ok(Vec::new()) };
        let failed = |source| AuditError::file(&path, source);
        let mut records = Vec::new();
        for line in BufReader::new(File::open(&path).map_err(failed)?.take(len)).lines() {
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

/// Writes what comes, as much at once as has come, until nobody can bring anything any more.
fn write_down(chain: &Mutex<Chain>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::new();
    while waiting.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        let (entries, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Waiting { entry, answer }| (entry, answer)).unzip();
        let written = chain.lock().unwrap_or_else(PoisonError::into_inner).append(entries);
        for answer in answers {
            // Who went away meanwhile does not carry it out either.
            drop(answer.send(written.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn entry(what: &str) -> Entry {
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
        let audit = Audit::start().unwrap();
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
        let audit = Audit::start().unwrap();
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
            let audit = Audit::start().unwrap();
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
        let audit = Audit::start().unwrap();
        audit.attach(&path).unwrap();
        audit.record(entry("POST /c")).unwrap();
        assert_eq!(audit.read(0, 10).unwrap().len(), 4);
    }
}
