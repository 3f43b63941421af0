//! The database of jobs, files and tokens: one SQLite file that survives a power cut at any moment.
//!
//! Write-ahead log, every commit flushed to the disk (`synchronous = FULL`), one process at a time
//! (`locking_mode = EXCLUSIVE`: a second agent on the same data fails to open it).

mod migrations;
pub mod salvage;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long another process may hold the database before opening it is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Memory for pages, in KiB (a negative `cache_size`).
const CACHE_KIB: i64 = 2048;

/// An open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Database(Arc<Mutex<Connection>>);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite says why.
    #[error("the job database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// It was written by a newer appliance.
    #[error("the job database has version {found}, and this appliance knows up to {known}: use the newer one")]
    Newer {
        /// Its version.
        found: u32,
        /// The highest known one.
        known: u32,
    },
    /// Another cannot be put in its place.
    #[error("the job database is damaged, and {} cannot take its place: {source}; it is tried again at the next start", path.display())]
    Exchange {
        /// The other one.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row holds what was never written there.
    #[error("the job database is damaged: {0}")]
    Damaged(String),
}

impl Database {
    /// Opens or creates the database, and brings it to the present version.
    ///
    /// # Errors
    /// [`DatabaseError`] when it cannot be opened, is damaged, or is too new.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(Connection::open_with_flags(path, flags)?)
    }

    /// A database in memory, which is gone with it.
    ///
    /// # Errors
    /// [`DatabaseError`] when there is no memory for it.
    pub fn in_memory() -> Result<Self, DatabaseError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(mut connection: Connection) -> Result<Self, DatabaseError> {
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        // Answers `memory` for a database in memory.
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        migrations::run(&mut connection)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Does `work` in one transaction: all of it is kept, or nothing.
    ///
    /// # Errors
    /// The error of `work`, or that of the commit.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Reads one state of the database.
    ///
    /// # Errors
    /// The error of `work`.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        work(&transaction)
    }

    /// Moves what the write-ahead log holds into the database itself. What is bad in the log would count as cut off by a power
    /// cut, and be missed by nobody.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn fold(&self) -> Result<(), DatabaseError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// Reads all of it and says whether it is whole.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] with what SQLite found.
    pub fn check(&self) -> Result<(), DatabaseError> {
        self.read(|transaction| {
            let verdict: String = transaction.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
            if verdict == "ok" { Ok(()) } else { Err(DatabaseError::Damaged(verdict)) }
        })
    }
}
