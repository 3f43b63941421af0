//! Tokens whose time has passed.

use gap_jobs::{Database, DatabaseError};

/// Deletes the tokens whose time has passed at `now`, for good: a clock that is set back later must not open with them again.
///
/// # Errors
/// [`DatabaseError`].
pub(super) fn forget(database: &Database, now: i64) -> Result<usize, DatabaseError> {
    database.write(|transaction| Ok(transaction.execute("DELETE FROM token WHERE expires_at <= ?1", [now])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_over_once_stays_over() {
        let database = Database::in_memory().unwrap();
        let text = "INSERT INTO token (id, name, role, sha256, created_at, expires_at) VALUES \
                    ('token-1', 'a', 'viewer', 'x', 0, 10), ('token-2', 'b', 'viewer', 'y', 0, 20), \
                    ('token-3', 'c', 'viewer', 'z', 0, NULL)";
        database.write(|transaction| transaction.execute(text, [])).unwrap();
        assert_eq!(forget(&database, 10).unwrap(), 1);
        assert_eq!(forget(&database, 5).unwrap(), 0);
        let left: i64 = database.read(|t| t.query_row("SELECT count(*) FROM token", [], |row| row.get(0))).unwrap();
        assert_eq!(left, 2);
    }
}
