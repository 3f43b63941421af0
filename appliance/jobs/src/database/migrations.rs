//! The tables, version by version. A version that was released is never changed: another is added after it.

use super::DatabaseError;
use rusqlite::{Connection, TransactionBehavior};

/// What makes version n + 1 of version n.
const STEPS: [&str; 2] = [
    "
    -- Times are milliseconds since 1970; lengths of time are milliseconds; sizes are bytes.
    CREATE TABLE job (
        sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
        id           TEXT    NOT NULL UNIQUE,
        kind         TEXT    NOT NULL,
        name         TEXT    NOT NULL,
        request      TEXT    NOT NULL,
        state        TEXT    NOT NULL,
        demand       TEXT    NOT NULL,
        placement    TEXT,
        priority     INTEGER NOT NULL,
        retry        TEXT    NOT NULL,
        time_limit   INTEGER,
        starts       INTEGER NOT NULL DEFAULT 0,
        failures     INTEGER NOT NULL DEFAULT 0,
        not_before   INTEGER NOT NULL DEFAULT 0,
        queued_at    INTEGER NOT NULL,
        ran          INTEGER NOT NULL DEFAULT 0,
        reason       TEXT,
        created_at   INTEGER NOT NULL,
        started_at   INTEGER,
        finished_at  INTEGER,
        events       INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX job_by_state ON job (state, priority DESC, sequence);
    CREATE INDEX job_by_name ON job (kind, name);

    CREATE TABLE job_need (
        job    INTEGER NOT NULL REFERENCES job (sequence) ON DELETE CASCADE,
        needed INTEGER NOT NULL REFERENCES job (sequence),
        PRIMARY KEY (job, needed)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE job_event (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        job      INTEGER NOT NULL REFERENCES job (sequence) ON DELETE CASCADE,
        at       INTEGER NOT NULL,
        level    TEXT    NOT NULL,
        state    TEXT,
        message  TEXT    NOT NULL,
        data     TEXT
    ) STRICT;
    CREATE INDEX job_event_by_job ON job_event (job, sequence);

    CREATE TABLE file (
        sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT    NOT NULL UNIQUE,
        filename   TEXT    NOT NULL,
        purpose    TEXT    NOT NULL,
        bytes      INTEGER NOT NULL,
        sha256     TEXT    NOT NULL,
        status     TEXT    NOT NULL,
        details    TEXT,
        created_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE upload (
        sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT    NOT NULL UNIQUE,
        filename   TEXT    NOT NULL,
        purpose    TEXT    NOT NULL,
        mime_type  TEXT    NOT NULL,
        bytes      INTEGER NOT NULL,
        status     TEXT    NOT NULL,
        file       TEXT,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE upload_part (
        sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT    NOT NULL UNIQUE,
        upload     INTEGER NOT NULL REFERENCES upload (sequence) ON DELETE CASCADE,
        bytes      INTEGER NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE token (
        sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT    NOT NULL UNIQUE,
        name       TEXT    NOT NULL,
        role       TEXT    NOT NULL,
        sha256     TEXT    NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        expires_at INTEGER
    ) STRICT;
",
    "
    CREATE TABLE promotion (
        sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT    NOT NULL UNIQUE,
        name        TEXT    NOT NULL,
        model       TEXT    NOT NULL,
        evaluation  TEXT,
        findings    TEXT    NOT NULL,
        reason      TEXT,
        promoted_by TEXT    NOT NULL,
        deployment  TEXT    NOT NULL,
        created_at  INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX promotion_by_name ON promotion (name, sequence);
",
];

/// Brings a database to the present version, each step in a transaction of its own.
pub fn run(connection: &mut Connection) -> Result<(), DatabaseError> {
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(DatabaseError::Newer { found, known });
    }
    for (version, step) in (1_u32..).zip(STEPS).skip_while(|(version, _)| *version <= found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_appliance_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection).unwrap();
        run(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(run(&mut connection), Err(DatabaseError::Newer { found: 99, known: 2 })));
    }
}
