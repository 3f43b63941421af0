//! Tokens: that of the site configuration, and those that are kept as hashes in the database. The first of these is
//! claimed with a code that only the console shows, as long as there is no admin otherwise.

use super::{Role, expiry};
use crate::{
    clock,
    token::{self, TokenError, TokenHash},
};
use gap_format::Digest;
use gap_jobs::{Database, DatabaseError, identifier};
use rusqlite::params;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Most tokens that there may be at once.
const MAX_TOKENS: usize = 1000;
/// Name of the token that the site gives.
const SITE: &str = "site";

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token for machines.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// A token that was claimed, or that an admin made.
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

/// Why the appliance is not claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The token is not made or kept.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// It has an admin already.
    #[error("this appliance has an admin already: ask them for a token")]
    Claimed,
    /// The code is another one.
    #[error("the code is not the one that the console shows")]
    WrongCode,
}

/// All tokens.
#[derive(Debug)]
pub struct Access {
    site: Option<TokenHash>,
    clock: Arc<clock::Board>,
    /// Where they are kept. Held by who changes something, while the database writes: who only looks does not wait for it.
    database: Mutex<Option<Database>>,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    is_attached: bool,
    tokens: BTreeMap<Digest, TokenRow>,
    /// The code that the first admin has to know; gone once it was used.
    code: Option<TokenHash>,
}

impl Access {
    /// Only the token of the site, if it gives one. No token is deleted while `clock` is not right.
    pub fn new(site: Option<TokenHash>, clock: Arc<clock::Board>) -> Self {
        Self { site, clock, database: Mutex::default(), kept: RwLock::default() }
    }

    /// Takes the tokens of the database as well. Returns the code with which the first admin's token can be claimed from
    /// now on, where nobody is admin at `now`; it has to be shown, and is known to nobody else.
    ///
    /// # Errors
    /// [`TokensError`] when they cannot be read, or no code can be made.
    pub fn attach(&self, database: Database, now: i64) -> Result<Option<String>, TokensError> {
        let mut place = self.place();
        if self.clock.is_right() {
            expiry::forget(&database, now)?;
        }
        let tokens: BTreeMap<Digest, TokenRow> = database.read(read_all)?.into_iter().collect();
        let is_admin = |row: &TokenRow| row.role == Role::Admin && !row.is_over(now);
        let has_admin = self.site.is_some() || tokens.values().any(is_admin);
        let (shown, code) =
            if has_admin { (None, None) } else { token::make_code().map(|(a, b)| (Some(a), Some(b)))? };
        *place = Some(database);
        *self.kept_mut() = Kept { is_attached: true, tokens, code };
        Ok(shown)
    }

    /// Whether tokens can be kept yet.
    pub fn is_attached(&self) -> bool {
        self.kept().is_attached
    }

    /// Whether this code, however it is written, is the one that the console shows.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn check_code(&self, code: &str) -> Result<(), ClaimError> {
        let kept = self.kept();
        if !kept.is_attached {
            return Err(TokensError::NoDatabase.into());
        }
        let shown = kept.code.ok_or(ClaimError::Claimed)?;
        if shown.opens_to_code(code) { Ok(()) } else { Err(ClaimError::WrongCode) }
    }

    /// Makes the first admin's token for who knows the code, which is used up then.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(&self, code: &str, name: String, now: i64) -> Result<(String, TokenRow), ClaimError> {
        let place = self.place();
        self.check_code(code)?;
        let made = self.make_in(place.as_ref(), NewToken { name, role: Role::Admin, expires_at: None }, now)?;
        self.kept_mut().code = None;
        Ok(made)
    }

    /// Whose token this is, if it is one and its time has not passed.
    pub fn caller(&self, token: &[u8], now: i64) -> Option<Caller> {
        if self.site.is_some_and(|site| site.opens(token)) {
            return Some(Caller { id: SITE.to_owned(), name: SITE.to_owned(), role: Role::Admin });
        }
        // Whoever learns by timing how much of a hash is right has learnt nothing of the token.
        let kept = self.kept();
        let row = kept.tokens.get(&Digest::of(token))?;
        (!row.is_over(now)).then(|| Caller { id: row.id.clone(), name: row.name.clone(), role: row.role })
    }

    /// All tokens that are kept, the oldest first.
    pub fn list(&self) -> Vec<TokenRow> {
        let mut rows: Vec<TokenRow> = self.kept().tokens.values().cloned().collect();
        rows.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        rows
    }

    /// Makes a token. Returns it with its row; it is not kept and cannot be shown again.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn make(&self, new: NewToken, now: i64) -> Result<(String, TokenRow), TokensError> {
        self.make_in(self.place().as_ref(), new, now)
    }

    /// Revokes a token, which opens nothing any more when this returns. Returns whether there was one of this name for
    /// machines.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn revoke(&self, id: &str) -> Result<bool, TokensError> {
        let place = self.place();
        let database = place.as_ref().ok_or(TokensError::NoDatabase)?;
        let removed = database.write(|transaction| -> Result<usize, TokensError> {
            Ok(transaction.execute("DELETE FROM token WHERE id = ?1", [id])?)
        })?;
        self.kept_mut().tokens.retain(|_, row| row.id != id);
        Ok(removed > 0)
    }

    /// Deletes the tokens whose time has passed at `now`, for good: a clock that is set back later must not open with them
    /// again. To be called again and again. While the clock is not known to be right nothing is deleted: one that is years
    /// ahead would take good tokens. Returns how many they were.
    ///
    /// # Errors
    /// [`TokensError`] when the database fails; they open nothing all the same until the clock is set back.
    pub fn forget(&self, now: i64) -> Result<usize, TokensError> {
        self.forget_in(self.place().as_ref(), now)
    }

    fn forget_in(&self, place: Option<&Database>, now: i64) -> Result<usize, TokensError> {
        if !self.clock.is_right() || !self.kept().tokens.values().any(|row| row.is_over(now)) {
            return Ok(0);
        }
        expiry::forget(place.ok_or(TokensError::NoDatabase)?, now)?;
        let mut kept = self.kept_mut();
        let count = kept.tokens.len();
        kept.tokens.retain(|_, row| !row.is_over(now));
        Ok(count.saturating_sub(kept.tokens.len()))
    }

    fn make_in(&self, place: Option<&Database>, new: NewToken, now: i64) -> Result<(String, TokenRow), TokensError> {
        let database = place.ok_or(TokensError::NoDatabase)?;
        // What is over takes no place.
        self.forget_in(place, now)?;
        if self.kept().tokens.len() >= MAX_TOKENS {
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
        self.kept_mut().tokens.insert(hash, row.clone());
        Ok((token, row))
    }

    fn place(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a moment only: every request waits for it.
    fn kept_mut(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenRow {
    /// Whether its time has passed.
    fn is_over(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
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
    use gap_handover::{
        boot_report,
        site::{Rtc, Time},
    };
    use std::{sync::mpsc::channel, thread, time::Duration};

    /// The clock of a machine whose site believes it, or does not.
    fn clock(is_right: bool) -> Arc<clock::Board> {
        let rtc = if is_right { Rtc::Trusted } else { Rtc::Untrusted };
        let found = boot_report::Clock { built: 0, was_behind: false };
        Arc::new(clock::Board::new(&Time { rtc, ..Time::default() }, found))
    }

    fn access() -> (Access, Database) {
        let access = Access::new(Some(TokenHash::of("site's")), clock(true));
        let database = Database::in_memory().unwrap();
        assert_eq!(access.attach(database.clone(), 0).unwrap(), None, "the site named an admin");
        (access, database)
    }

    fn new(role: Role, expires_at: Option<i64>) -> NewToken {
        NewToken { name: "ci".into(), role, expires_at }
    }

    #[test]
    fn a_made_token_has_its_role_until_it_is_revoked() {
        let (access, database) = access();
        let (token, row) = access.make(new(Role::Operator, None), 5).unwrap();
        let caller = Caller { id: row.id.clone(), name: "ci".into(), role: Role::Operator };
        assert_eq!(access.caller(token.as_bytes(), 9), Some(caller.clone()));
        let again = Access::new(None, clock(true));
        assert_eq!(again.caller(token.as_bytes(), 9), None);
        again.attach(database, 9).unwrap();
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
    fn a_token_whose_time_has_passed_is_not_taken_again_when_the_clock_is_set_back() {
        let (access, database) = access();
        let (token, _) = access.make(new(Role::Viewer, Some(10)), 5).unwrap();
        let (stays, _) = access.make(new(Role::Viewer, Some(20)), 5).unwrap();
        assert_eq!((access.forget(9).unwrap(), access.forget(10).unwrap(), access.forget(10).unwrap()), (0, 1, 0));
        let again = Access::new(None, clock(true));
        again.attach(database, 5).unwrap();
        for access in [access, again] {
            assert!(access.caller(token.as_bytes(), 5).is_none() && access.caller(stays.as_bytes(), 5).is_some());
        }
    }

    #[test]
    fn the_sites_token_is_an_admin_even_without_a_database() {
        let access = Access::new(Some(TokenHash::of("site's")), clock(true));
        assert_eq!(access.caller(b"site's", 0).unwrap().role, Role::Admin);
        assert_eq!(access.caller(b"other", 0), None);
        assert!(matches!(access.make(new(Role::Viewer, None), 0), Err(TokensError::NoDatabase)));
    }

    #[test]
    fn the_code_is_taken_once_and_its_token_survives_a_restart() {
        let database = Database::in_memory().unwrap();
        let access = Access::new(None, clock(true));
        let early = access.claim("0000-0000-0000-0000", "me".into(), 1);
        assert!(matches!(early, Err(ClaimError::Tokens(TokensError::NoDatabase))));
        let code = access.attach(database.clone(), 1).unwrap().unwrap();
        assert!(matches!(access.claim("0000-0000-0000-0000", "me".into(), 1), Err(ClaimError::WrongCode)));
        assert!(access.list().is_empty());
        let (token, row) = access.claim(&code, "me".into(), 1).unwrap();
        assert_eq!((row.role, row.expires_at), (Role::Admin, None));
        assert!(matches!(access.claim(&code, "me".into(), 1), Err(ClaimError::Claimed)));
        let again = Access::new(None, clock(true));
        assert_eq!(again.attach(database, 2).unwrap(), None, "there is an admin");
        assert_eq!(
            again.caller(token.as_bytes(), 2),
            Some(Caller { id: row.id, name: "me".into(), role: Role::Admin })
        );
        assert!(matches!(again.claim(&code, "me".into(), 2), Err(ClaimError::Claimed)));
    }

    #[test]
    fn who_is_no_admin_any_more_does_not_keep_the_next_one_out() {
        let database = Database::in_memory().unwrap();
        let access = Access::new(None, clock(true));
        let code = access.attach(database.clone(), 0).unwrap().unwrap();
        let (_, first) = access.claim(&code, "me".into(), 0).unwrap();
        access.make(new(Role::Operator, None), 0).unwrap();
        access.make(new(Role::Admin, Some(10)), 0).unwrap();
        access.revoke(&first.id).unwrap();
        assert_eq!(access.attach(database.clone(), 9).unwrap(), None);
        assert!(access.attach(database, 10).unwrap().is_some());
    }

    #[test]
    fn a_site_with_a_token_of_its_own_is_never_claimed() {
        let (access, _) = access();
        assert!(matches!(access.claim("0000-0000-0000-0000", "me".into(), 0), Err(ClaimError::Claimed)));
    }

    #[test]
    fn a_clock_that_is_not_known_to_be_right_deletes_no_token() {
        let (access, database) = access();
        let (token, _) = access.make(new(Role::Viewer, Some(10)), 5).unwrap();
        let doubted = Access::new(None, clock(false));
        doubted.attach(database.clone(), 1_000_000).unwrap();
        assert_eq!(doubted.forget(1_000_000).unwrap(), 0);
        assert!(doubted.caller(token.as_bytes(), 1_000_000).is_none(), "it opens nothing meanwhile");
        let again = Access::new(None, clock(true));
        again.attach(database, 6).unwrap();
        assert!(again.caller(token.as_bytes(), 6).is_some());
    }

    #[test]
    fn tokens_whose_time_has_passed_take_no_place_of_new_ones() {
        let (access, _) = access();
        for _ in 0..MAX_TOKENS {
            access.make(new(Role::Viewer, Some(10)), 5).unwrap();
        }
        assert!(matches!(access.make(new(Role::Viewer, None), 9), Err(TokensError::TooMany)));
        access.make(new(Role::Viewer, None), 10).unwrap();
        assert_eq!(access.list().len(), 1);
    }

    #[test]
    fn who_looks_does_not_wait_for_a_change_that_waits_for_the_disk() {
        let (access, database) = access();
        let (token, row) = access.make(new(Role::Viewer, None), 5).unwrap();
        let access = Arc::new(access);
        let (sender, receiver) = channel();
        let changing = database
            .write(|_| -> Result<_, rusqlite::Error> {
                let (changed, looked) = (Arc::clone(&access), Arc::clone(&access));
                let changing = thread::spawn(move || changed.revoke(&row.id).unwrap());
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(100));
                    sender.send(looked.caller(token.as_bytes(), 6).is_some()).unwrap();
                });
                assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), "it opens until that is on the disk");
                Ok(changing)
            })
            .unwrap();
        assert!(changing.join().unwrap() && access.list().is_empty());
    }
}
