//! What is done about a database that is damaged, by a bad block for instance: what can be read of it and makes sense goes into
//! a new one, which takes its place, and it is kept as it is. Nothing of that runs by itself, and no token is taken over.
//!
//! A power cut may come between any two steps. The new one is filled under another name, so that the damaged one is where it
//! was until all is taken over. From then on the new one counts, and the exchange is ended at the next start. It bears a mark
//! until whoever keeps bytes beside the database has compared them with it ([`settled`]).

use super::{Database, DatabaseError};
use crate::{identifier, queue};
use rusqlite::{Connection, OptionalExtension, Transaction, config::DbConfig, params, params_from_iter, types::Value};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Tables that are taken over, those that others refer to first. Tokens and promotions are not: a bad block
/// must not open a door, nor put a model where nobody put it. Nor are uploads that are under way: they begin anew.
const TABLES: [&str; 4] = ["job", "job_need", "job_event", "file"];
/// Most rows of a table that are looked for, one by one.
const MAX_ROWS: i64 = 10_000_000;
/// Files that belong to a database besides itself, by what its name is followed by.
const PARTS: [&str; 2] = ["-wal", "-shm"];
/// Extensions of a new one while it is filled, and when it is.
const MAKING: &str = "making";
const MADE: &str = "new";
/// The mark: it is there until all is settled. No part of the tables that every database has.
const MARK: &str = "CREATE TABLE salvage (aside TEXT NOT NULL, reason TEXT NOT NULL, rows INTEGER NOT NULL, \
                    held INTEGER NOT NULL) STRICT";

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

/// Opens the database in this file and reads all of it. Another takes the place of one that is damaged. What came of it is told
/// at each start until it is settled.
///
/// # Errors
/// [`DatabaseError`] when it is of a newer appliance, in use, or there is no room for another.
pub fn open(path: &Path, now: i64) -> Result<(Database, Option<Salvaged>), DatabaseError> {
    finish(path)?;
    let database = match whole(path) {
        Err(error) if error.is_damage() => {
            make(path, &error.to_string(), now)?;
            finish(path)?;
            whole(path)?
        }
        opened => opened?,
    };
    let salvaged = mark(&database, path)?;
    Ok((database, salvaged))
}

/// Whether a database was made of a damaged one and what lies beside it was not compared with it yet.
///
/// # Errors
/// What SQLite says.
pub fn is_unsettled(database: &Database) -> Result<bool, DatabaseError> {
    Ok(mark(database, Path::new(""))?.is_some())
}

/// Notes that what lies beside a database that was made of a damaged one was compared with it.
///
/// # Errors
/// What SQLite says.
pub fn settled(database: &Database) -> Result<(), DatabaseError> {
    database.write(|transaction| Ok(transaction.execute_batch("DROP TABLE IF EXISTS salvage")?))
}

fn whole(path: &Path) -> Result<Database, DatabaseError> {
    let database = Database::open(path)?;
    database.check()?;
    database.fold()?;
    Ok(database)
}

/// The mark of a database, which lies at `path`.
fn mark(database: &Database, path: &Path) -> Result<Option<Salvaged>, DatabaseError> {
    database.read(|transaction| {
        let has_mark: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'salvage')",
            [],
            |row| row.get(0),
        )?;
        if !has_mark {
            return Ok(None);
        }
        let read = transaction.query_row("SELECT aside, reason, rows, held FROM salvage", [], |row| {
            Ok(Salvaged {
                aside: path.with_file_name(row.get::<_, String>(0)?),
                reason: row.get(1)?,
                rows: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                held: usize::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
            })
        });
        Ok(Some(read?))
    })
}

/// Makes a new database of a damaged one, which stays where it is, and gives it its name only when it is on the disk as a whole.
fn make(path: &Path, reason: &str, now: i64) -> Result<(), DatabaseError> {
    let (making, made) = (path.with_extension(MAKING), path.with_extension(MADE));
    let exchange = |source| DatabaseError::Exchange { path: made.clone(), source };
    // What a power cut left.
    remove(&making).map_err(exchange)?;
    let filled = Database::open(&making).and_then(|new| {
        fill(path, &new, reason, now)?;
        new.fold()
    });
    if let Err(error) = filled {
        // It would only take room.
        drop(remove(&making));
        return Err(error);
    }
    let named = fs::File::open(&making).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&making, &made));
    named.and_then(|()| sync(path)).map_err(exchange)
}

/// Takes over what can be read of the database at `path`, all of it or nothing, and marks the new one.
fn fill(path: &Path, new: &Database, reason: &str, now: i64) -> Result<(), DatabaseError> {
    let old = Connection::open(path).and_then(|old| {
        // It is kept as it is: neither by closing it is anything written into it.
        old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(old)
    });
    let aside = path.with_extension(format!("damaged-{}", identifier::random("db")));
    let aside = aside.file_name().unwrap_or_default().to_string_lossy();
    new.write(|transaction| {
        let mut rows = 0_u64;
        if let Ok(old) = old {
            for table in TABLES {
                rows = rows.saturating_add(copy(&old, transaction, table)?);
            }
        }
        let held = queue::hold(transaction, now)?;
        transaction.execute_batch(MARK)?;
        let (rows, held) = (i64::try_from(rows).unwrap_or(i64::MAX), i64::try_from(held).unwrap_or(i64::MAX));
        let values = params![aside, reason, rows, held];
        transaction.execute("INSERT INTO salvage (aside, reason, rows, held) VALUES (?1, ?2, ?3, ?4)", values)?;
        Ok(())
    })
}

/// Puts a new database that is ready in the place of the damaged one, wherever that was broken off.
fn finish(path: &Path) -> Result<(), DatabaseError> {
    let made = path.with_extension(MADE);
    let exchange = |source| DatabaseError::Exchange { path: made.clone(), source };
    if !made.try_exists().map_err(exchange)? {
        return Ok(());
    }
    match Database::open(&made).and_then(|database| mark(&database, path)) {
        Ok(Some(salvaged)) => set_aside(path, &salvaged.aside).map_err(exchange)?,
        // It was damaged in its turn: it is made again, of the one that is still there.
        Ok(None) if path.exists() => return remove(&made).map_err(exchange),
        Err(error) if error.is_damage() && path.exists() => return remove(&made).map_err(exchange),
        Ok(None) => {}
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    fs::rename(&made, path).and_then(|()| sync(path)).and_then(|()| remove(&made)).map_err(exchange)
}

/// Gives what is left of a damaged database in its place another name. Its log goes first: it would count for the new one.
fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    for part in PARTS.into_iter().chain([""]) {
        unless_gone(fs::rename(with(path, part), with(aside, part)))?;
    }
    sync(path)
}

/// Removes a database. It is no error when it is gone.
fn remove(path: &Path) -> io::Result<()> {
    PARTS.into_iter().chain([""]).try_for_each(|part| unless_gone(fs::remove_file(with(path, part))))
}

fn with(path: &Path, part: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(part);
    name.into()
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns when the names beside a file are on the disk.
fn sync(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

/// Copies the rows of a table that can be read and that the new one takes, each by itself. Returns how many.
fn copy(old: &Connection, new: &Transaction<'_>, table: &str) -> Result<u64, DatabaseError> {
    let columns = columns(old, table).unwrap_or_default();
    let key = if columns.iter().any(|column| column == "sequence") { "sequence" } else { "job" };
    let list = columns.join(", ");
    let marks = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO {table} ({list}) VALUES ({marks})");
    let select = format!("SELECT {list} FROM {table} WHERE {key} = ?1");
    let Ok(mut rows) = old.prepare(&select) else { return Ok(0) };
    let mut copied = 0_u64;
    for number in 1..=last(old, table, key) {
        let Ok(mut found) = rows.query([number]) else { continue };
        while let Ok(Some(row)) = found.next() {
            let values: Result<Vec<Value>, _> = (0..columns.len()).map(|at| row.get(at)).collect();
            let Ok(values) = values else { continue };
            let kept = new.prepare_cached(&insert).and_then(|mut one| one.execute(params_from_iter(values)));
            match kept {
                Ok(_) => copied = copied.saturating_add(1),
                Err(error) if is_of_the_disk(&error) => return Err(error.into()),
                // It makes no sense.
                Err(_) => {}
            }
        }
    }
    Ok(copied)
}

/// Whether a row was not taken because the new database takes none, whatever the row.
fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, OutOfMemory, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure | OutOfMemory | DatabaseCorrupt))
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
            Self::Newer { .. } | Self::Exchange { .. } => false,
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
            settled(&database).unwrap();
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

    /// A database with 50 jobs of which a page is bad that loses none of them, and why it is bad.
    fn damaged() -> (tempfile::TempDir, PathBuf, String) {
        let pages = {
            let (_directory, path) = filled();
            fs::metadata(path).unwrap().len() / 4096
        };
        for page in 1..pages {
            let (directory, path) = filled();
            spoil(&path, page);
            let Err(error) = whole(&path) else { continue };
            make(&path, "trial", 9).unwrap();
            let new = Database::open(&path.with_extension(MADE)).unwrap();
            if jobs(&new).len() == 50 {
                drop(new);
                remove(&path.with_extension(MADE)).unwrap();
                return (directory, path, error.to_string());
            }
        }
        panic!("no page is good for this test");
    }

    /// Opens the database as the next start does, and finds all that it held.
    fn opens_with_all(path: &Path, when: &str) -> Salvaged {
        let (database, salvaged) = open(path, 9).unwrap();
        let salvaged = salvaged.unwrap_or_else(|| panic!("{when}: it is not known that it was salvaged"));
        assert_eq!((jobs(&database).len(), salvaged.held), (50, 50), "{when}");
        assert!(salvaged.aside.exists(), "{when}");
        for extension in [MAKING, MADE] {
            assert!(!path.with_extension(extension).exists(), "{when}: {extension}");
        }
        salvaged
    }

    #[test]
    fn wherever_a_power_cut_breaks_it_off_nothing_is_lost() {
        type Stop = (&'static str, fn(&Path));
        let stops: [Stop; 5] = [
            ("while it is filled", |path| {
                fs::write(path.with_extension(MAKING), "half").unwrap();
                fs::write(with(&path.with_extension(MAKING), "-wal"), "half").unwrap();
            }),
            ("when it is filled", |path| make(path, "test", 9).unwrap()),
            ("when the log is set aside", |path| {
                make(path, "test", 9).unwrap();
                fs::write(with(path, "-wal"), "log").unwrap();
                let aside = mark(&Database::open(&path.with_extension(MADE)).unwrap(), path).unwrap().unwrap().aside;
                fs::rename(with(path, "-wal"), with(&aside, "-wal")).unwrap();
            }),
            ("when the damaged one is set aside", |path| {
                make(path, "test", 9).unwrap();
                let aside = mark(&Database::open(&path.with_extension(MADE)).unwrap(), path).unwrap().unwrap().aside;
                set_aside(path, &aside).unwrap();
            }),
            ("when the new one is in its place", |path| {
                make(path, "test", 9).unwrap();
                finish(path).unwrap();
            }),
        ];
        for (when, stop) in stops {
            let (_directory, path, _) = damaged();
            stop(&path);
            let first = opens_with_all(&path, when);
            assert_eq!(opens_with_all(&path, when), first, "{when}: it is told until it is settled");
            settled(&open(&path, 9).unwrap().0).unwrap();
            let (database, salvaged) = open(&path, 9).unwrap();
            assert_eq!((salvaged, jobs(&database).len()), (None, 50), "{when}");
        }
    }

    #[test]
    fn a_log_of_the_damaged_one_does_not_count_for_the_new_one() {
        let (_directory, path, _) = damaged();
        make(&path, "test", 9).unwrap();
        fs::write(with(&path, "-wal"), "log").unwrap();
        let salvaged = opens_with_all(&path, "with a log");
        assert_eq!(fs::read(with(&salvaged.aside, "-wal")).unwrap(), b"log");
    }

    #[test]
    fn without_room_for_another_the_damaged_one_stays_where_it_is() {
        let (_directory, path, reason) = damaged();
        let before = fs::read(&path).unwrap();
        let small = Database::open(&path.with_file_name("small.db")).unwrap();
        small.write(|t| t.pragma_update_and_check(None, "max_page_count", 1, |_| Ok(()))).unwrap();
        let full = fill(&path, &small, &reason, 9).unwrap_err();
        let is_full = |error: &rusqlite::Error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        assert!(matches!(&full, DatabaseError::Sqlite(error) if is_full(error)), "{full}");
        assert_eq!((jobs(&small).len(), is_unsettled(&small).unwrap()), (0, false), "nothing is taken over by halves");
        assert_eq!(fs::read(&path).unwrap(), before);
        opens_with_all(&path, "when there is room");
    }

    #[test]
    fn a_new_one_that_is_damaged_in_its_turn_is_made_again() {
        let (_directory, path, _) = damaged();
        fs::write(path.with_extension(MADE), vec![7; 100_000]).unwrap();
        opens_with_all(&path, "with a bad new one");
    }
}
