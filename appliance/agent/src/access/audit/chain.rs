//! The chain of records on its file, or in memory as long as there is none.

use super::{AuditError, Entry, Record};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 64 << 10;
/// Records that are kept in memory while there is no file yet.
const MAX_HELD: usize = 1000;

/// The file and how much of it is on the disk, for readers, who do not wait for a write.
pub(super) type Shown = Arc<Mutex<Option<(PathBuf, u64)>>>;

/// What records are written on.
trait Paper: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all is on the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes it this long again.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Paper for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// What was recorded so far.
#[derive(Default)]
pub(super) struct Chain {
    log: Option<Log>,
    held: Vec<Entry>,
    shown: Shown,
}

struct Log {
    paper: Box<dyn Paper>,
    path: PathBuf,
    end: End,
    /// Whether there may be something behind the end that is no record.
    is_torn: bool,
}

/// Where a chain ends: the last record's number and hash, and the length of the file up to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct End {
    number: u64,
    hash: String,
    len: u64,
}

impl Chain {
    /// Where readers see how far it is.
    pub(super) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// Goes on in this file, and writes down what was held in memory.
    pub(super) fn attach(&mut self, path: &Path) -> Result<(), AuditError> {
        let failed = |source| AuditError::file(path, source);
        let end = match check(path) {
            Ok(end) => end,
            Err(error @ AuditError::Broken { .. }) => {
                let aside = path.with_extension(format!("broken-{}", gap_jobs::identifier::random("log")));
                std::fs::rename(path, aside).map_err(failed)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        let mut log = Log { paper: Box::new(file), path: path.to_owned(), end, is_torn: false };
        log.append(&self.held).map_err(failed)?;
        self.held.clear();
        self.log = Some(log);
        self.show();
        Ok(())
    }

    /// Writes entries, which are all on the disk when this returns, or none of them.
    pub(super) fn append(&mut self, entries: Vec<Entry>) -> Result<(), AuditError> {
        let Some(log) = &mut self.log else {
            if self.held.len().saturating_add(entries.len()) > MAX_HELD {
                return Err(AuditError::Full);
            }
            self.held.extend(entries);
            return Ok(());
        };
        log.append(&entries).map_err(|source| AuditError::file(&log.path, source))?;
        self.show();
        Ok(())
    }

    fn show(&self) {
        let shown = self.log.as_ref().map(|log| (log.path.clone(), log.end.len));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

impl Log {
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.mend()?;
        let (mut end, mut lines) = (self.end.clone(), Vec::new());
        for entry in entries {
            let record = Record::after(end.number.saturating_add(1), &end.hash, entry.clone())?;
            serde_json::to_writer(&mut lines, &record)?;
            lines.push(b'\n');
            end.number = record.number;
            end.hash = record.hash;
        }
        if lines.is_empty() {
            return Ok(());
        }
        end.len = end.len.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
        self.is_torn = true;
        if let Err(error) = self.paper.append(&lines).and_then(|()| self.paper.sync()) {
            // At once, so that a reader of the file finds nothing but records; before the next one in any case.
            drop(self.mend());
            return Err(error);
        }
        self.is_torn = false;
        self.end = end;
        Ok(())
    }

    /// Removes what a write left behind that failed. Anything that follows it would follow from no record.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.paper.cut(self.end.len)?;
            self.paper.sync()?;
            self.is_torn = false;
        }
        Ok(())
    }
}

/// Follows the chain in a file to its end. A last line that was cut off by a power cut is removed: what it would have
/// recorded was not done.
fn check(path: &Path) -> Result<End, AuditError> {
    let failed = |source| AuditError::file(path, source);
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(&file);
    let (mut end, mut line) = (End::default(), Vec::new());
    loop {
        line.clear();
        let len = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if len == 0 {
            return Ok(end);
        }
        if line.last() != Some(&b'\n') {
            file.set_len(end.len).map_err(failed)?;
            return Ok(end);
        }
        let broken = || AuditError::Broken { path: path.to_owned(), number: end.number.saturating_add(1) };
        if len > MAX_LINE {
            return Err(broken());
        }
        let record: Record = serde_json::from_slice(&line).map_err(|_| broken())?;
        let follows = record.number == end.number.saturating_add(1)
            && record.previous == end.hash
            && record.digest().is_ok_and(|digest| digest == record.hash);
        if !follows {
            return Err(broken());
        }
        end = End {
            number: record.number,
            hash: record.hash,
            len: end.len.saturating_add(u64::try_from(len).unwrap_or(0)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Audit, *};
    use crate::access::audit::tests::entry;
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
        time::{Duration, Instant},
    };

    /// A file on a disk with faults.
    struct Disk {
        file: File,
        faults: Arc<Faults>,
    }

    #[derive(Default)]
    struct Faults {
        is_full: AtomicBool,
        cannot_cut: AtomicBool,
        delay_ms: AtomicUsize,
        syncs: AtomicUsize,
    }

    impl Paper for Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if self.faults.is_full.load(Ordering::Relaxed) {
                self.file.append(&bytes[..bytes.len() / 2])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.file.append(bytes)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.faults.syncs.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(self.faults.delay_ms.load(Ordering::Relaxed) as u64));
            Paper::sync(&mut self.file)
        }

        fn cut(&mut self, len: u64) -> io::Result<()> {
            if self.faults.cannot_cut.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Other.into());
            }
            self.file.cut(len)
        }
    }

    /// A log on such a disk, with one record.
    fn log() -> (tempfile::TempDir, PathBuf, Audit, Arc<Faults>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start().unwrap();
        audit.attach(&path).unwrap();
        let faults = Arc::<Faults>::default();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut chain = audit.chain.lock().unwrap();
        chain.log.as_mut().unwrap().paper = Box::new(Disk { file, faults: faults.clone() });
        drop(chain);
        audit.record(entry("POST /a")).unwrap();
        (directory, path, audit, faults)
    }

    #[test]
    fn a_write_that_failed_leaves_nothing_that_breaks_the_chain() {
        let (_directory, path, audit, faults) = log();
        let good = std::fs::read(&path).unwrap();
        faults.is_full.store(true, Ordering::Relaxed);
        assert!(audit.record(entry("POST /b")).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), good);
        faults.is_full.store(false, Ordering::Relaxed);
        audit.record(entry("POST /c")).unwrap();
        assert_eq!(check(&path).unwrap().number, 2);
        assert_eq!(audit.read(0, 10).unwrap()[1].entry.what, "POST /c");
    }

    #[test]
    fn nothing_is_recorded_as_long_as_the_file_cannot_be_cut_back() {
        let (_directory, path, audit, faults) = log();
        faults.is_full.store(true, Ordering::Relaxed);
        faults.cannot_cut.store(true, Ordering::Relaxed);
        assert!(audit.record(entry("POST /b")).is_err());
        faults.is_full.store(false, Ordering::Relaxed);
        assert!(audit.record(entry("POST /c")).is_err(), "it would follow half a record");
        assert_eq!(audit.read(0, 10).unwrap().len(), 1, "readers see what is whole");
        faults.cannot_cut.store(false, Ordering::Relaxed);
        audit.record(entry("POST /d")).unwrap();
        assert_eq!(check(&path).unwrap().number, 2);
    }

    #[test]
    fn who_waits_for_a_slow_disk_shares_one_write_and_holds_no_thread() {
        let (_directory, path, audit, faults) = log();
        faults.syncs.store(0, Ordering::Relaxed);
        faults.delay_ms.store(300, Ordering::Relaxed);
        let audit = Arc::new(audit);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build().unwrap();
        let all: Vec<_> = (0..32)
            .map(|n| {
                let audit = Arc::clone(&audit);
                runtime.spawn(async move { audit.keep(entry(&format!("POST /{n}"))).await })
            })
            .collect();
        let began = Instant::now();
        runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
        assert!(began.elapsed() < Duration::from_millis(300), "a thread waited for the disk");
        for one in all {
            runtime.block_on(one).unwrap().unwrap();
        }
        assert_eq!(check(&path).unwrap().number, 33);
        let syncs = faults.syncs.load(Ordering::Relaxed);
        assert!(syncs <= 4, "{syncs} writes");
    }

    #[test]
    fn of_those_who_wait_for_one_write_that_fails_none_is_recorded() {
        let (_directory, path, audit, faults) = log();
        faults.is_full.store(true, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let both = async { tokio::join!(audit.keep(entry("POST /b")), audit.keep(entry("POST /c"))) };
        let (one, other) = runtime.block_on(both);
        assert!(one.is_err() && other.is_err());
        assert_eq!(check(&path).unwrap().number, 1);
    }
}
