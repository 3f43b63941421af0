//! Jobs as rows of the database.

use super::Filter;
use crate::{
    database::DatabaseError,
    identifier::JobId,
    job::{Job, JobEvent, Level, NewJob},
    state::State,
};
use rusqlite::{OptionalExtension, Row, Transaction, params, params_from_iter};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Write, time::Duration};

const COLUMNS: &str = "sequence, id, kind, name, request, state, demand, placement, priority, retry, time_limit, \
                       starts, failures, not_before, ran, reason, created_at, started_at, finished_at";

/// A length of time as the database has it.
pub fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The state of this name.
pub fn state(name: &str) -> Result<State, DatabaseError> {
    name.parse().map_err(|error: crate::state::UnknownState| DatabaseError::Damaged(error.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Result<String, DatabaseError> {
    serde_json::to_string(value).map_err(|error| DatabaseError::Damaged(error.to_string()))
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, DatabaseError> {
    serde_json::from_str(text).map_err(|error| DatabaseError::Damaged(error.to_string()))
}

/// Adds a job that waits.
pub fn insert(transaction: &Transaction<'_>, id: &JobId, new: &NewJob, now: i64) -> Result<(), DatabaseError> {
    let text = "INSERT INTO job (id, kind, name, request, state, demand, priority, retry, time_limit, queued_at, \
                created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)";
    let values = params![
        id.as_str(),
        new.kind.name(),
        new.name,
        new.request,
        State::Queued.name(),
        encode(&new.demand)?,
        new.priority,
        encode(&new.retry)?,
        new.time_limit.map(millis),
        now,
    ];
    transaction.prepare_cached(text)?.execute(values)?;
    Ok(())
}

/// Writes what may change of a job.
pub fn update(transaction: &Transaction<'_>, job: &Job, now: i64) -> Result<(), DatabaseError> {
    let text = "UPDATE job SET state = ?2, placement = ?3, starts = ?4, failures = ?5, not_before = ?6, ran = ?7, \
                reason = ?8, started_at = ?9, finished_at = ?10, \
                queued_at = CASE WHEN ?2 = 'queued' THEN ?11 ELSE queued_at END WHERE sequence = ?1";
    let values = params![
        job.sequence,
        job.state.name(),
        job.placement.as_ref().map(encode).transpose()?,
        job.starts,
        job.failures,
        job.not_before,
        millis(job.ran),
        job.reason,
        job.started_at,
        job.finished_at,
        now,
    ];
    transaction.prepare_cached(text)?.execute(values)?;
    Ok(())
}

/// The job of this name.
pub fn by_id(transaction: &Transaction<'_>, id: &JobId) -> Result<Option<Job>, DatabaseError> {
    let text = format!("SELECT {COLUMNS} FROM job WHERE id = ?1");
    let raw = transaction.prepare_cached(&text)?.query_row([id.as_str()], Raw::read).optional()?;
    raw.map(|raw| raw.job(transaction)).transpose()
}

/// Numbers of all jobs.
pub fn sequences(transaction: &Transaction<'_>) -> Result<Vec<i64>, DatabaseError> {
    let mut statement = transaction.prepare("SELECT sequence FROM job ORDER BY sequence")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The job of this number, if its row makes sense.
pub fn by_sequence(transaction: &Transaction<'_>, sequence: i64) -> Result<Job, DatabaseError> {
    let text = format!("SELECT {COLUMNS} FROM job WHERE sequence = ?1");
    transaction.prepare_cached(&text)?.query_row([sequence], Raw::read)?.job(transaction)
}

/// Removes a job and all that is about it.
pub fn delete(transaction: &Transaction<'_>, sequence: i64) -> Result<(), DatabaseError> {
    transaction.execute("DELETE FROM job_need WHERE needed = ?1", [sequence])?;
    transaction.execute("DELETE FROM job WHERE sequence = ?1", [sequence])?;
    Ok(())
}

/// Jobs of the filter that were submitted before number `before`, the last one first.
pub fn before(transaction: &Transaction<'_>, before: i64, filter: &Filter) -> Result<Vec<Job>, DatabaseError> {
    let mut text = format!("SELECT {COLUMNS} FROM job WHERE sequence < ?");
    let mut values = vec![rusqlite::types::Value::from(before)];
    let names = [
        ("kind", filter.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>()),
        ("state", filter.states.iter().map(|state| state.name()).collect()),
    ];
    for (column, names) in names.into_iter().filter(|(_, names)| !names.is_empty()) {
        let marks = vec!["?"; names.len()].join(", ");
        let _ = write!(text, " AND {column} IN ({marks})");
        values.extend(names.into_iter().map(|name| rusqlite::types::Value::from(name.to_owned())));
    }
    if let Some(name) = &filter.name {
        text.push_str(" AND name = ?");
        values.push(name.clone().into());
    }
    text.push_str(" ORDER BY sequence DESC LIMIT ?");
    values.push(i64::try_from(filter.limit).unwrap_or(i64::MAX).into());
    let mut statement = transaction.prepare_cached(&text)?;
    let raws = statement.query_map(params_from_iter(values), Raw::read)?.collect::<Result<Vec<_>, _>>()?;
    raws.into_iter().map(|raw| raw.job(transaction)).collect()
}

/// Waiting jobs whose time has come and whose needs are met, the most urgent first, and since when each waits. A time
/// farther away than any that is ever waited for was written before the clock was set back, and has come too.
pub fn ready(transaction: &Transaction<'_>, now: i64, limit: i64) -> Result<Vec<(Job, i64)>, DatabaseError> {
    let text = format!(
        "SELECT {COLUMNS}, queued_at FROM job WHERE state = 'queued'
         AND (not_before <= ?1 OR not_before - ?1 > json_extract(retry, '$.longest_delay_ms')) AND NOT EXISTS (
             SELECT 1 FROM job_need JOIN job AS other ON other.sequence = job_need.needed
             WHERE job_need.job = job.sequence AND other.state <> 'succeeded'
         ) ORDER BY priority DESC, sequence LIMIT ?2"
    );
    let mut statement = transaction.prepare_cached(&text)?;
    let read = |row: &Row<'_>| Ok((Raw::read(row)?, row.get("queued_at")?));
    let raws = statement.query_map([now, limit], read)?.collect::<Result<Vec<_>, _>>()?;
    raws.into_iter().map(|(raw, queued_at)| Ok((raw.job(transaction)?, queued_at))).collect()
}

/// Jobs that wait for another that failed or was cancelled, and the name of that one.
pub fn orphans(transaction: &Transaction<'_>) -> Result<Vec<(Job, String)>, DatabaseError> {
    let text = "SELECT job.id, min(other.id) FROM job
                JOIN job_need ON job_need.job = job.sequence
                JOIN job AS other ON other.sequence = job_need.needed
                WHERE job.state IN ('queued', 'paused') AND other.state IN ('failed', 'cancelled')
                GROUP BY job.sequence ORDER BY job.sequence";
    let mut statement = transaction.prepare_cached(text)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let pairs = statement.query_map([], read)?.collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    for (id, needed) in pairs {
        if let Some(job) = by_id(transaction, &job_id(id)?)? {
            found.push((job, needed));
        }
    }
    Ok(found)
}

/// Adds an event.
pub fn insert_event(
    transaction: &Transaction<'_>,
    job: i64,
    now: i64,
    level: Level,
    state: Option<State>,
    message: &str,
    data: Option<&str>,
) -> Result<(), DatabaseError> {
    let text = "INSERT INTO job_event (job, at, level, state, message, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![job, now, level.name(), state.map(State::name), message, data];
    transaction.prepare_cached(text)?.execute(values)?;
    transaction.prepare_cached("UPDATE job SET events = events + 1 WHERE sequence = ?1")?.execute([job])?;
    Ok(())
}

/// Numbers of ended jobs that told something and ended before those to which the last `most` events belong.
pub fn beyond(transaction: &Transaction<'_>, most: u64) -> Result<Vec<i64>, DatabaseError> {
    let text = "SELECT sequence FROM (
                    SELECT sequence, sum(events) OVER (ORDER BY finished_at DESC, sequence DESC) AS total
                    FROM job WHERE finished_at IS NOT NULL
                ) AS ended WHERE total > ?1 AND EXISTS (
                    SELECT 1 FROM job_event WHERE job_event.job = ended.sequence AND job_event.state IS NULL
                )";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = transaction.prepare(text)?;
    Ok(statement.query_map([most], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Removes what a job told. Changes of its state stay.
pub fn forget_told(transaction: &Transaction<'_>, job: i64) -> Result<(), DatabaseError> {
    transaction.prepare_cached("DELETE FROM job_event WHERE job = ?1 AND state IS NULL")?.execute([job])?;
    Ok(())
}

/// Names of ended jobs, the last to end first.
pub fn ended(transaction: &Transaction<'_>) -> Result<Vec<JobId>, DatabaseError> {
    let text = "SELECT id FROM job WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, sequence DESC";
    let mut statement = transaction.prepare(text)?;
    let ids = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    ids.into_iter().map(job_id).collect()
}

/// Events of a job after number `after`, oldest first.
pub fn events(
    transaction: &Transaction<'_>,
    job: i64,
    after: i64,
    limit: usize,
) -> Result<Vec<JobEvent>, DatabaseError> {
    let text = "SELECT sequence, at, level, state, message, data FROM job_event
                WHERE job = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
    read_events(transaction, text, job, after, limit)
}

/// Events of a job before number `before`, newest first.
pub fn events_before(
    transaction: &Transaction<'_>,
    job: i64,
    before: i64,
    limit: usize,
) -> Result<Vec<JobEvent>, DatabaseError> {
    let text = "SELECT sequence, at, level, state, message, data FROM job_event
                WHERE job = ?1 AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3";
    read_events(transaction, text, job, before, limit)
}

fn read_events(
    transaction: &Transaction<'_>,
    text: &str,
    job: i64,
    bound: i64,
    limit: usize,
) -> Result<Vec<JobEvent>, DatabaseError> {
    let mut statement = transaction.prepare_cached(text)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![job, bound, limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let named: Option<String> = row.get(3)?;
        events.push(JobEvent {
            sequence: row.get(0)?,
            at: row.get(1)?,
            level: Level::named(&row.get::<_, String>(2)?),
            state: named.as_deref().map(state).transpose()?,
            message: row.get(4)?,
            data: row.get(5)?,
        });
    }
    Ok(events)
}

fn job_id(text: String) -> Result<JobId, DatabaseError> {
    JobId::try_from(text).map_err(|error| DatabaseError::Damaged(error.to_string()))
}

/// A row as SQLite has it, before its texts are understood.
struct Raw {
    id: String,
    kind: String,
    state: String,
    demand: String,
    placement: Option<String>,
    retry: String,
    job: Plain,
}

/// The columns that need no understanding.
struct Plain {
    sequence: i64,
    name: String,
    request: String,
    priority: i32,
    time_limit: Option<i64>,
    starts: u32,
    failures: u32,
    not_before: i64,
    ran: i64,
    reason: Option<String>,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            state: row.get("state")?,
            demand: row.get("demand")?,
            placement: row.get("placement")?,
            retry: row.get("retry")?,
            job: Plain {
                sequence: row.get("sequence")?,
                name: row.get("name")?,
                request: row.get("request")?,
                priority: row.get("priority")?,
                time_limit: row.get("time_limit")?,
                starts: row.get("starts")?,
                failures: row.get("failures")?,
                not_before: row.get("not_before")?,
                ran: row.get("ran")?,
                reason: row.get("reason")?,
                created_at: row.get("created_at")?,
                started_at: row.get("started_at")?,
                finished_at: row.get("finished_at")?,
            },
        })
    }

    fn job(self, transaction: &Transaction<'_>) -> Result<Job, DatabaseError> {
        let Self { id, kind, state: named, demand, placement, retry, job } = self;
        let damaged = |error: crate::job::UnknownKind| DatabaseError::Damaged(error.to_string());
        Ok(Job {
            id: job_id(id)?,
            sequence: job.sequence,
            kind: kind.parse().map_err(damaged)?,
            name: job.name,
            request: job.request,
            state: state(&named)?,
            demand: decode(&demand)?,
            placement: placement.as_deref().map(decode).transpose()?,
            priority: job.priority,
            retry: decode(&retry)?,
            time_limit: job.time_limit.map(duration),
            needs: needs(transaction, job.sequence)?,
            starts: job.starts,
            failures: job.failures,
            not_before: job.not_before,
            ran: duration(job.ran),
            reason: job.reason,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        })
    }
}

fn needs(transaction: &Transaction<'_>, job: i64) -> Result<Vec<JobId>, DatabaseError> {
    let text = "SELECT other.id FROM job_need JOIN job AS other ON other.sequence = job_need.needed
                WHERE job_need.job = ?1 ORDER BY other.sequence";
    let mut statement = transaction.prepare_cached(text)?;
    let ids = statement.query_map([job], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    ids.into_iter().map(job_id).collect()
}
