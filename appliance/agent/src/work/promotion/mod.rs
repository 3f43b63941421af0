//! Promotion: a stable name for a model that was measured, kept with its history.

mod judgement;
mod lineage;
mod promote;

pub use judgement::{Finding, Unjudged};
pub use promote::{NewPromotion, PromoteError};

use gap_contract::Deployment;
use gap_jobs::{Database, DatabaseError, identifier};
use rusqlite::{Row, Transaction, params};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, RwLock},
};

/// Most promotions that are kept.
const MAX_PROMOTIONS: i64 = 10_000;
/// Longest stable name, in bytes.
const MAX_NAME: usize = 64;
/// The columns of a promotion.
const COLUMNS: &str = "id, name, model, evaluation, findings, reason, promoted_by, deployment, created_at";

/// A model that got a stable name.
#[derive(Debug, Clone, PartialEq)]
pub struct Promotion {
    /// Its own name.
    pub id: String,
    /// The stable name.
    pub name: String,
    /// The model that it stands for from then on.
    pub model: String,
    /// The job that measured the model.
    pub evaluation: Option<String>,
    /// What was demanded of the model, and what was measured.
    pub findings: Vec<Finding>,
    /// Why it was promoted although not all of that was met.
    pub reason: Option<String>,
    /// Name of the token.
    pub promoted_by: String,
    /// Release, GPUs and driver.
    pub deployment: Deployment,
    /// When, in milliseconds since 1970.
    pub created_at: i64,
}

/// Why promotions cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum PromotionsError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no such promotion.
    #[error("there is no promotion `{0}`")]
    None(String),
    /// Too many.
    #[error("there are {MAX_PROMOTIONS} promotions already, and their history is kept")]
    TooMany,
}

impl From<rusqlite::Error> for PromotionsError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// All promotions; the newest of each name decides.
#[derive(Debug)]
pub struct Promotions {
    database: Database,
    /// Held by who adds one, while the database writes: requests to models do not wait for it.
    adding: Mutex<()>,
    targets: RwLock<BTreeMap<String, Promotion>>,
}

impl Promotions {
    /// Reads what each stable name stands for.
    ///
    /// # Errors
    /// [`PromotionsError`].
    pub fn open(database: Database) -> Result<Self, PromotionsError> {
        let newest = "SELECT max(sequence) FROM promotion GROUP BY name";
        let text = format!("SELECT {COLUMNS} FROM promotion WHERE sequence IN ({newest})");
        let rows = database.read(|transaction| select(transaction, &text, params![]))?;
        let targets = rows.into_iter().map(|promotion| (promotion.name.clone(), promotion)).collect();
        Ok(Self { database, adding: Mutex::default(), targets: RwLock::new(targets) })
    }

    /// The model that a stable name stands for.
    pub fn target(&self, name: &str) -> Option<String> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.get(name).map(|promotion| promotion.model.clone())
    }

    /// The newest promotion of each stable name.
    pub fn current(&self) -> Vec<Promotion> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Promotions of this name or of all, the last first, at most `limit`, before the one called `after`.
    ///
    /// # Errors
    /// [`PromotionsError`].
    pub fn list(
        &self,
        name: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Promotion>, PromotionsError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database.read(|transaction| {
            let before: i64 = match after {
                None => i64::MAX,
                Some(id) => {
                    let found =
                        transaction.query_row("SELECT sequence FROM promotion WHERE id = ?1", [id], |row| row.get(0));
                    found.map_err(|error| missing(error, id))?
                }
            };
            let text = format!(
                "SELECT {COLUMNS} FROM promotion WHERE sequence < ?1 AND (?2 IS NULL OR name = ?2) \
                 ORDER BY sequence DESC LIMIT ?3"
            );
            select(transaction, &text, params![before, name, limit])
        })
    }

    /// The promotion of this name.
    ///
    /// # Errors
    /// [`PromotionsError`].
    pub fn get(&self, id: &str) -> Result<Promotion, PromotionsError> {
        let text = format!("SELECT {COLUMNS} FROM promotion WHERE id = ?1");
        let found = self.database.read(|transaction| select(transaction, &text, params![id]))?.pop();
        found.ok_or_else(|| PromotionsError::None(id.to_owned()))
    }

    /// Keeps a promotion, which decides from then on. Its `id` is made here.
    fn add(&self, mut promotion: Promotion) -> Result<Promotion, PromotionsError> {
        promotion.id = identifier::random("promotion");
        let _turn = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.write(|transaction| insert(transaction, &promotion))?;
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.insert(promotion.name.clone(), promotion.clone());
        Ok(promotion)
    }
}

fn insert(transaction: &Transaction<'_>, promotion: &Promotion) -> Result<(), PromotionsError> {
    let count: i64 = transaction.query_row("SELECT count(*) FROM promotion", [], |row| row.get(0))?;
    if count >= MAX_PROMOTIONS {
        return Err(PromotionsError::TooMany);
    }
    let json = |value: serde_json::Result<String>| value.map_err(|error| DatabaseError::Damaged(error.to_string()));
    transaction.execute(
        &format!("INSERT INTO promotion ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
        params![
            promotion.id,
            promotion.name,
            promotion.model,
            promotion.evaluation,
            json(serde_json::to_string(&promotion.findings))?,
            promotion.reason,
            promotion.promoted_by,
            json(serde_json::to_string(&promotion.deployment))?,
            promotion.created_at,
        ],
    )?;
    Ok(())
}

fn select(
    transaction: &Transaction<'_>,
    text: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Promotion>, PromotionsError> {
    let mut statement = transaction.prepare(text)?;
    let mut rows = statement.query(values)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn read(row: &Row<'_>) -> Result<Promotion, PromotionsError> {
    let damaged = |error: serde_json::Error| DatabaseError::Damaged(format!("a promotion: {error}"));
    let (findings, deployment): (String, String) = (row.get(4)?, row.get(7)?);
    Ok(Promotion {
        id: row.get(0)?,
        name: row.get(1)?,
        model: row.get(2)?,
        evaluation: row.get(3)?,
        findings: serde_json::from_str(&findings).map_err(damaged)?,
        reason: row.get(5)?,
        promoted_by: row.get(6)?,
        deployment: serde_json::from_str(&deployment).map_err(damaged)?,
        created_at: row.get(8)?,
    })
}

fn missing(error: rusqlite::Error, id: &str) -> PromotionsError {
    match error {
        rusqlite::Error::QueryReturnedNoRows => PromotionsError::None(id.to_owned()),
        error => error.into(),
    }
}

/// Whether this can be a stable name: it tells itself from the names of models that are made here, which hold colons.
pub fn is_stable_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= MAX_NAME
        && name.bytes().all(is_good)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_contract::Release;
    use std::{
        sync::{Arc, mpsc::channel},
        thread,
        time::Duration,
    };

    fn promotion(name: &str, model: &str) -> Promotion {
        let release = Release { name: "r".into(), version: "1".into(), digest: "d".into() };
        Promotion {
            id: String::new(),
            name: name.into(),
            model: model.into(),
            evaluation: None,
            findings: vec![Finding {
                metric: "exact_match".into(),
                comparison: ">=".into(),
                bound: 0.9,
                value: Some(0.95),
                is_met: true,
            }],
            reason: Some("because".into()),
            promoted_by: "me".into(),
            deployment: Deployment {
                name: name.into(),
                deployed_at: 1,
                release,
                gpus: vec!["NVIDIA H200".into()],
                driver: None,
            },
            created_at: 1000,
        }
    }

    #[test]
    fn the_newest_promotion_of_a_name_decides_and_the_history_stays() {
        let database = Database::in_memory().unwrap();
        let promotions = Promotions::open(database.clone()).unwrap();
        let first = promotions.add(promotion("support", "ft:a:x:1")).unwrap();
        let second = promotions.add(promotion("support", "ft:a:x:2")).unwrap();
        let other = promotions.add(promotion("sales", "tiny")).unwrap();
        let again = Promotions::open(database).unwrap();
        for promotions in [&promotions, &again] {
            assert_eq!(promotions.target("support").as_deref(), Some("ft:a:x:2"));
            assert_eq!(promotions.target("none"), None);
            assert_eq!(promotions.current(), [other.clone(), second.clone()]);
        }
        let list = |name, after, limit| again.list(name, after, limit).unwrap();
        assert_eq!(list(None, None, 2), [other.clone(), second.clone()]);
        assert_eq!(list(None, Some(&second.id), 9), std::slice::from_ref(&first));
        assert_eq!(list(Some("support"), None, 9), [second, first.clone()]);
        assert_eq!(again.get(&first.id).unwrap(), first);
        assert!(matches!(again.get("x"), Err(PromotionsError::None(_))));
        assert!(matches!(again.list(None, Some("x"), 1), Err(PromotionsError::None(_))));
    }

    #[test]
    fn who_asks_what_a_name_stands_for_does_not_wait_for_the_disk() {
        let database = Database::in_memory().unwrap();
        let promotions = Arc::new(Promotions::open(database.clone()).unwrap());
        promotions.add(promotion("support", "tiny")).unwrap();
        let (sender, receiver) = channel();
        let adding = database
            .write(|_| -> Result<_, rusqlite::Error> {
                let (adds, asks) = (Arc::clone(&promotions), Arc::clone(&promotions));
                let adding = thread::spawn(move || adds.add(promotion("support", "ft:a:x:1")).unwrap());
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(100));
                    sender.send(asks.target("support")).unwrap();
                });
                assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap().as_deref(), Some("tiny"));
                Ok(adding)
            })
            .unwrap();
        adding.join().unwrap();
        assert_eq!(promotions.target("support").as_deref(), Some("ft:a:x:1"));
    }

    #[test]
    fn a_stable_name_cannot_be_taken_for_a_model_or_a_path() {
        assert!(["support", "a", "v1.2_x-y", "9"].into_iter().all(is_stable_name));
        let long = "x".repeat(65);
        assert!(!["", ".", "..", "-x", "a/b", "ft:a:b:1", "a b", "ü", &long].into_iter().any(is_stable_name));
    }
}
