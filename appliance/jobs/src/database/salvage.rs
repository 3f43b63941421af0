//! What is done about a database that is damaged, by a bad block for instance: it is set aside as it is, and what can be
//! read of it and makes sense goes into a new one. Nothing of that runs by itself, and no token is taken over.

use super::{Database, DatabaseError};
use crate::{identifier, queue};
use rusqlite::{Connection, OptionalExtension, Transaction, params_from_iter, types::Value};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Tables that are taken over, those that others refer to first. Tokens and promotions are not: a bad block
/// must not open a door, nor put a model where nobody put it. Nor are uploads that are under way: they begin anew.
const TABLES: [&str; 4] = ["job", "job_need", "job_event", "file"];
/// Most rows of a table that are looked for, one by one.
const MAX_ROWS: i64 = 10_000_000;
/// Files that belong to a database, by what its name is followed by.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// What came of a damaged database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Where the damaged one lies now.
    pub aside: PathBuf,
    /// What was wrong with it.
    pub reason: String,
    /// Rows that were taken over.
    pub rows: u64,
    /// Jobs that had not ended, and wait for somebody to resume them.
    pub held: usize,
}

/// Opens the database in this file and reads all of it. One that is damaged is set aside, and another takes its place.
///
/// # Errors
/// [`DatabaseError`] when it is of a newer appliance, in use, or there is no room for another.
pub fn open(path: &Path, now: i64) -> Result<(Database, Option<Salvaged>), DatabaseError> {
    let opened = Database::open(path).and_then(|database| {
        database.check()?;
        database.fold()?;
        Ok(database)
    });
    match opened {
        Ok(database) => Ok((database, None)),
        Err(error) if error.is_damage() => {
            let (database, salvaged) = salvage(path, error.to_string(), now)?;
            Ok((database, Some(salvaged)))
        }
        Err(error) => Err(error),
    }
}

fn salvage(path: &Path, reason: String, now: i64) -> Result<(Database, Salvaged), DatabaseError> {
    let aside =
        set_aside(path).map_err(|error| DatabaseError::Damaged(format!("{reason}; setting it aside: {error}")))?;
    let database = Database::open(path)?;
    let (mut rows, mut held) = (0, 0);
    if let Ok(old) = Connection::open(&aside) {
        database.write(|transaction| -> Result<(), DatabaseError> {
            rows = TABLES.iter().map(|table| copy(&old, transaction, table)).sum();
            held = queue::hold(transaction, now)?;
            Ok(())
        })?;
    }
    Ok((database, Salvaged { aside, reason, rows, held }))
}

/// Gives the files of a database another name.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension(format!("damaged-{}", identifier::random("db")));
    for part in PARTS {
        let of = |path: &Path| PathBuf::from(format!("{}{part}", path.display()));
        match fs::rename(of(path), of(&aside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())?;
    Ok(aside)
}

/// Copies the rows of a table that can be read and that the new one takes, each by itself. Returns how many.
fn copy(old: &Connection, new: &Transaction<'_>, table: &str) -> u64 {
    let columns = columns(old, table).unwrap_or_default();
    let key = if columns.iter().any(|column| column == "sequence") { "sequence" } else { "job" };
    let list = columns.join(", ");
    let marks = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO {table} ({list}) VALUES ({marks})");
    let select = format!("SELECT {list} FROM {table} WHERE {key} = ?1");
    let Ok(mut rows) = old.prepare(&select) else { return 0 };
    let mut copied = 0;
    for number in 1..=last(old, table, key) {
        let Ok(mut found) = rows.query([number]) else { continue };
        while let Ok(Some(row)) = found.next() {
            let values: Result<Vec<Value>, _> = (0..columns.len()).map(|at| row.get(at)).collect();
            let Ok(values) = values else { continue };
            let kept = new.prepare_cached(&insert).and_then(|mut one| one.execute(params_from_iter(values)));
            copied += u64::from(kept.is_ok());
        }
    }
    copied
}

fn columns(old: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = old.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// The highest number that a row of a table may have: as SQLite remembers it, or as its last page says.
fn last(old: &Connection, table: &str, key: &str) -> i64 {
    let table_of = if key == "sequence" { table } else { "job" };
    let remembered = old
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table_of], |row| row.get(0))
        .optional()
        .ok()
        .flatten();
    let found = || old.query_row(&format!("SELECT max({key}) FROM {table}"), [], |row| row.get(0)).ok();
    remembered.or_else(found).unwrap_or(0).clamp(0, MAX_ROWS)
}

impl DatabaseError {
    /// Whether the file itself is at fault, and not its version or who else uses it.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
        match self {
            Self::Damaged(_) => true,
            Self::Newer { .. } => false,
            Self::Sqlite(error) => {
                matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SystemIoFailure))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Demand, Kind, NewJob, Queue, Retry, State, queue::Filter};
    use std::os::unix::fs::FileExt;

    fn job(name: &str) -> NewJob {
        NewJob {
            kind: Kind::Run,
            name: name.into(),
            request: "x".repeat(900),
            demand: Demand::default(),
            priority: 0,
            retry: Retry::NEVER,
            time_limit: None,
            needs: Vec::new(),
        }
    }

    /// A database with 50 jobs and a token, closed.
    fn filled() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.db");
        let database = Database::open(&path).unwrap();
        let queue = Queue::new(database.clone());
        for number in 0..50 {
            queue.submit(&job(&number.to_string()), 5).unwrap();
        }
        let text = "INSERT INTO token (id, name, role, sha256, created_at) VALUES ('token-1', 'x', 'admin', 'y', 5)";
        database.write(|transaction| transaction.execute(text, [])).unwrap();
        (directory, path)
    }

    /// Overwrites a page, numbered from 0.
    fn spoil(path: &Path, page: u64) {
        fs::File::options().write(true).open(path).unwrap().write_all_at(&[0xa5; 4096], page * 4096).unwrap();
    }

    fn jobs(database: &Database) -> Vec<crate::Job> {
        Queue::new(database.clone()).jobs(&Filter { limit: 1000, ..Filter::default() }).unwrap()
    }

    #[test]
    fn a_whole_database_is_opened_as_it_is() {
        let (_directory, path) = filled();
        let (database, salvaged) = open(&path, 9).unwrap();
        assert_eq!((salvaged, jobs(&database).len()), (None, 50));
        let log = fs::metadata(format!("{}-wal", path.display())).unwrap();
        assert_eq!(log.len(), 0, "what the log held is in the database");
    }

    #[test]
    fn whatever_page_is_bad_the_rest_is_taken_over_and_nothing_runs_by_itself() {
        let pages = {
            let (_directory, path) = filled();
            fs::metadata(path).unwrap().len() / 4096
        };
        let mut most = 0;
        for page in 0..pages {
            let (_directory, path) = filled();
            spoil(&path, page);
            let (database, salvaged) = open(&path, 9).unwrap();
            // A page that nothing stands on is no damage.
            let Some(salvaged) = salvaged else { continue };
            assert!(salvaged.aside.exists());
            let jobs = jobs(&database);
            most = most.max(jobs.len());
            assert_eq!(salvaged.held, jobs.len(), "page {page}");
            for job in jobs {
                assert_eq!(job.state, State::Paused, "page {page}");
                assert!(job.reason.unwrap().contains("damaged") && job.request.len() == 900);
            }
            let tokens: i64 = database.read(|t| t.query_row("SELECT count(*) FROM token", [], |r| r.get(0))).unwrap();
            assert_eq!(tokens, 0, "page {page}");
            drop(database);
            assert_eq!(open(&path, 9).unwrap().1, None, "the new one is whole");
        }
        assert_eq!(most, 50, "a bad page of an index loses nothing");
    }

    #[test]
    fn what_is_no_database_at_all_is_set_aside_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.db");
        fs::write(&path, vec![7; 100_000]).unwrap();
        let (database, salvaged) = open(&path, 9).unwrap();
        let salvaged = salvaged.unwrap();
        assert_eq!((salvaged.rows, jobs(&database).len()), (0, 0));
        assert_eq!(fs::read(salvaged.aside).unwrap().len(), 100_000);
    }
}
