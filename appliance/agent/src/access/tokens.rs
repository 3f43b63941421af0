//! Tokens: the first one, which opens everything, and those that an admin made, which are kept as hashes.

use super::Role;
use crate::token::{self, TokenError, TokenHash};
use gap_format::Digest;
use gap_jobs::{Database, DatabaseError, identifier};
use rusqlite::params;
use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

/// Most tokens that there may be at once.
const MAX_TOKENS: usize = 1000;
/// Name of the token that is made at the first start or given by the site.
const FIRST: &str = "first";

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// A token that an admin made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name for machines.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// When it stops being taken, in milliseconds since 1970.
    pub expires_at: Option<i64>,
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name for people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it stops being taken, in milliseconds since 1970.
    pub expires_at: Option<i64>,
}

/// Why a token is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] TokenError),
    /// Too many.
    #[error("there are {MAX_TOKENS} tokens already: revoke some")]
    TooMany,
    /// There is nowhere to keep them yet.
    #[error("tokens cannot be kept before the data volume is there; try again soon")]
    NoDatabase,
}

impl From<rusqlite::Error> for TokensError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// All tokens.
#[derive(Debug)]
pub struct Access {
    first: TokenHash,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    database: Option<Database>,
    tokens: BTreeMap<Digest, TokenRow>,
}

impl Access {
    /// Only the first token.
    pub fn new(first: TokenHash) -> Self {
        Self { first, kept: RwLock::default() }
    }

    /// Takes the tokens of the database as well.
    ///
    /// # Errors
    /// [`TokensError`] when they cannot be read.
    pub fn attach(&self, database: Database) -> Result<(), TokensError> {
        let rows: Vec<(Digest, TokenRow)> = database.read(read_all)?;
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) =
            Kept { database: Some(database), tokens: rows.into_iter().collect() };
        Ok(())
    }

    /// Whose token this is, if it is one and its time has not passed.
    pub fn caller(&self, token: &[u8], now: i64) -> Option<Caller> {
        if self.first.opens(token) {
            return Some(Caller { name: FIRST.to_owned(), role: Role::Admin });
        }
        // Whoever learns by timing how much of a hash is right has learnt nothing of the token.
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let row = kept.tokens.get(&Digest::of(token))?;
        let is_over = row.expires_at.is_some_and(|end| end <= now);
        (!is_over).then(|| Caller { name: row.name.clone(), role: row.role })
    }

    /// All tokens that an admin made, the oldest first.
    pub fn list(&self) -> Vec<TokenRow> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<TokenRow> = kept.tokens.values().cloned().collect();
        rows.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        rows
    }

    /// Makes a token. Returns it with its row; it is not kept and cannot be shown again.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn make(&self, new: NewToken, now: i64) -> Result<(String, TokenRow), TokensError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let database = kept.database.clone().ok_or(TokensError::NoDatabase)?;
        if kept.tokens.len() >= MAX_TOKENS {
            return Err(TokensError::TooMany);
        }
        let token = token::make()?;
        let hash = Digest::of(token.as_bytes());
        let NewToken { name, role, expires_at } = new;
        let row = TokenRow { id: identifier::random("token"), name, role, created_at: now, expires_at };
        database.write(|transaction| -> Result<(), TokensError> {
            let text =
                "INSERT INTO token (id, name, role, sha256, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let values = params![row.id, row.name, row.role.name(), hash.to_hex(), row.created_at, row.expires_at];
            transaction.execute(text, values)?;
            Ok(())
        })?;
        kept.tokens.insert(hash, row.clone());
        Ok((token, row))
    }

    /// Revokes a token at once. Returns whether there was one of this name for machines.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn revoke(&self, id: &str) -> Result<bool, TokensError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let database = kept.database.clone().ok_or(TokensError::NoDatabase)?;
        let removed = database.write(|transaction| -> Result<usize, TokensError> {
            Ok(transaction.execute("DELETE FROM token WHERE id = ?1", [id])?)
        })?;
        kept.tokens.retain(|_, row| row.id != id);
        Ok(removed > 0)
    }
}

fn read_all(transaction: &rusqlite::Transaction<'_>) -> Result<Vec<(Digest, TokenRow)>, TokensError> {
    let mut statement = transaction.prepare("SELECT sha256, id, name, role, created_at, expires_at FROM token")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (hash, role): (String, String) = (row.get(0)?, row.get(3)?);
        // A row that cannot be understood opens nothing.
        if let (Ok(hash), Some(role)) = (Digest::from_hex(&hash), Role::named(&role)) {
            let row =
                TokenRow { id: row.get(1)?, name: row.get(2)?, role, created_at: row.get(4)?, expires_at: row.get(5)? };
            all.push((hash, row));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> (Access, Database) {
        let access = Access::new(TokenHash::of("first"));
        let database = Database::in_memory().unwrap();
        access.attach(database.clone()).unwrap();
        (access, database)
    }

    fn new(role: Role, expires_at: Option<i64>) -> NewToken {
        NewToken { name: "ci".into(), role, expires_at }
    }

    #[test]
    fn a_made_token_has_its_role_until_it_is_revoked() {
        let (access, database) = access();
        let (token, row) = access.make(new(Role::Operator, None), 5).unwrap();
        let caller = Caller { name: "ci".into(), role: Role::Operator };
        assert_eq!(access.caller(token.as_bytes(), 9), Some(caller.clone()));
        let again = Access::new(TokenHash::of("first"));
        assert_eq!(again.caller(token.as_bytes(), 9), None);
        again.attach(database).unwrap();
        assert_eq!((again.caller(token.as_bytes(), 9), again.list()), (Some(caller), vec![row.clone()]));
        assert!(again.revoke(&row.id).unwrap() && !again.revoke(&row.id).unwrap());
        assert_eq!(again.caller(token.as_bytes(), 9), None);
    }

    #[test]
    fn a_token_ends_when_its_time_has_passed() {
        let (access, _) = access();
        let (token, _) = access.make(new(Role::Viewer, Some(10)), 5).unwrap();
        assert!(access.caller(token.as_bytes(), 9).is_some());
        assert!(access.caller(token.as_bytes(), 10).is_none());
    }

    #[test]
    fn the_first_token_is_an_admin_even_without_a_database() {
        let access = Access::new(TokenHash::of("first"));
        assert_eq!(access.caller(b"first", 0).unwrap().role, Role::Admin);
        assert_eq!(access.caller(b"other", 0), None);
        assert!(matches!(access.make(new(Role::Viewer, None), 0), Err(TokensError::NoDatabase)));
    }
}
