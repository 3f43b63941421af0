//! The queue: all jobs there ever were, and every change of one as one transaction.

mod claim;
mod row;

use crate::{
    database::{Database, DatabaseError},
    identifier::JobId,
    job::{Job, JobEvent, Kind, Level, NewJob, Retry},
    placement::{Machine, Placement},
    runtime::News,
    state::{Ending, Event, Refused, State},
};
use rusqlite::{OptionalExtension, Transaction, params};
use std::{collections::BTreeMap, time::Duration};

/// A run that lasted this long before it failed counts as the first failure of a new row.
const SETTLED: Duration = Duration::from_secs(600);
/// Most lines that are kept of what one job tells; changes of its state are always kept.
const MAX_EVENTS: u64 = 20_000;
/// Most jobs that may wait at once.
const MAX_WAITING: i64 = 10_000;
/// Most jobs that one may need.
const MAX_NEEDS: usize = 64;

/// Why the queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// The job's state does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It needs a job that is not there.
    #[error("it needs the job {0}, which does not exist")]
    NoNeeded(JobId),
    /// It needs a job that will never succeed.
    #[error("it needs the job {id}, which is {state}")]
    Hopeless {
        /// The needed job.
        id: JobId,
        /// Its state.
        state: State,
    },
    /// It needs too many jobs.
    #[error("it needs {0} jobs; {MAX_NEEDS} are the most")]
    TooManyNeeds(usize),
    /// Too many jobs wait.
    #[error("{MAX_WAITING} jobs wait already: cancel some, or wait")]
    Full,
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The queue.
#[derive(Debug, Clone)]
pub struct Queue(Database);

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these kinds; all when empty.
    pub kinds: Vec<Kind>,
    /// In these states; all when empty.
    pub states: Vec<State>,
    /// Of this name; of all names when absent.
    pub name: Option<String>,
    /// Submitted before this one.
    pub after: Option<JobId>,
    /// At most this many.
    pub limit: usize,
}

/// How a run of a job ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Well or not.
    pub ending: Ending,
    /// Why, where there is something to say.
    pub reason: Option<String>,
    /// How long this run lasted since the last [`Queue::note_ran`].
    pub ran: Duration,
    /// How long it lasted in all.
    pub lasted: Duration,
}

impl Queue {
    /// The queue in this database.
    pub const fn new(database: Database) -> Self {
        Self(database)
    }

    /// Takes a job in.
    ///
    /// # Errors
    /// [`QueueError`] when a job that it needs is not there or has failed, or the queue is full.
    pub fn submit(&self, new: &NewJob, now: i64) -> Result<Job, QueueError> {
        if new.needs.len() > MAX_NEEDS {
            return Err(QueueError::TooManyNeeds(new.needs.len()));
        }
        self.0.write(|transaction| {
            let waiting: i64 =
                transaction.query_row("SELECT count(*) FROM job WHERE state = 'queued'", [], |row| row.get(0))?;
            if waiting >= MAX_WAITING {
                return Err(QueueError::Full);
            }
            let id = JobId::new(new.kind.prefix());
            row::insert(transaction, &id, new, now)?;
            let job = find(transaction, &id)?;
            for needed in &new.needs {
                let other = row::by_id(transaction, needed)?.ok_or_else(|| QueueError::NoNeeded(needed.clone()))?;
                if matches!(other.state, State::Failed | State::Cancelled) {
                    return Err(QueueError::Hopeless { id: other.id, state: other.state });
                }
                let pair = params![job.sequence, other.sequence];
                transaction.execute("INSERT OR IGNORE INTO job_need (job, needed) VALUES (?1, ?2)", pair)?;
            }
            row::insert_event(transaction, job.sequence, now, Level::Info, Some(State::Queued), "submitted", None)?;
            find(transaction, &id)
        })
    }

    /// The job of this name.
    ///
    /// # Errors
    /// [`QueueError`] when there is none or the database fails.
    pub fn job(&self, id: &JobId) -> Result<Job, QueueError> {
        self.0.read(|transaction| find(transaction, id))
    }

    /// Jobs, the last submitted first.
    ///
    /// # Errors
    /// [`QueueError`] when `after` names no job or the database fails.
    pub fn jobs(&self, filter: &Filter) -> Result<Vec<Job>, QueueError> {
        self.0.read(|transaction| {
            let before = match &filter.after {
                Some(id) => find(transaction, id)?.sequence,
                None => i64::MAX,
            };
            Ok(row::before(transaction, before, filter)?)
        })
    }

    /// How many jobs are in each state.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn counts(&self) -> Result<Vec<(State, u64)>, QueueError> {
        self.0.read(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT state, count(*) FROM job GROUP BY state")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            let mut counts = Vec::new();
            for row in rows {
                let (name, count) = row?;
                counts.push((row::state(&name)?, u64::try_from(count).unwrap_or(0)));
            }
            Ok(counts)
        })
    }

    /// What happened to a job after the event of number `after` (0 for all), oldest first.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job or the database fails.
    pub fn events(&self, id: &JobId, after: i64, limit: usize) -> Result<Vec<JobEvent>, QueueError> {
        self.0.read(|transaction| {
            let job = find(transaction, id)?;
            Ok(row::events(transaction, job.sequence, after, limit)?)
        })
    }

    /// What happened to a job before the event of number `before`, newest first.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job or the database fails.
    pub fn last_events(&self, id: &JobId, before: i64, limit: usize) -> Result<Vec<JobEvent>, QueueError> {
        self.0.read(|transaction| {
            let job = find(transaction, id)?;
            Ok(row::events_before(transaction, job.sequence, before, limit)?)
        })
    }

    /// Keeps what a job tells. What is too much is dropped.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job or the database fails.
    pub fn tell(&self, id: &JobId, news: &[News], now: i64) -> Result<(), QueueError> {
        if news.is_empty() {
            return Ok(());
        }
        self.0.write(|transaction| {
            let (sequence, events) = transaction
                .query_row("SELECT sequence, events FROM job WHERE id = ?1", [id.as_str()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()?
                .ok_or_else(|| QueueError::NoJob(id.clone()))?;
            let room = usize::try_from(MAX_EVENTS.saturating_sub(u64::try_from(events).unwrap_or(u64::MAX)));
            for News { level, message, data } in news.iter().take(room.unwrap_or(usize::MAX)) {
                row::insert_event(transaction, sequence, now, *level, None, message, data.as_deref())?;
            }
            Ok(())
        })
    }

    /// Forgets what ended jobs told, but for about the last `most` events of those that ended last. Changes of state stay.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn forget_told(&self, most: u64) -> Result<(), QueueError> {
        let beyond = self.0.read(|transaction| row::beyond(transaction, most))?;
        // One by one: others wait for the database.
        beyond.into_iter().try_for_each(|job| self.0.write(|transaction| Ok(row::forget_told(transaction, job)?)))
    }

    /// The jobs that have ended, the last to end first.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn ended_jobs(&self) -> Result<Vec<JobId>, QueueError> {
        self.0.read(|transaction| Ok(row::ended(transaction)?))
    }

    /// Chooses the jobs that start now and marks them as running: whoever calls this starts them.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn claim(&self, machine: &Machine, now: i64) -> Result<Vec<Job>, QueueError> {
        self.0.write(|transaction| claim::claim(transaction, machine, now))
    }

    /// What each job waits for that could start if there were room.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn waits(&self, machine: &Machine, now: i64) -> Result<BTreeMap<JobId, String>, QueueError> {
        self.0.read(|transaction| claim::waits(transaction, machine, now))
    }

    /// When the next job that waits after a failure is due, if one does.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn next_due(&self, now: i64) -> Result<Option<i64>, QueueError> {
        self.0.read(|transaction| {
            let text = "SELECT min(not_before) FROM job WHERE state = 'queued' AND not_before > ?1";
            Ok(transaction.query_row(text, [now], |row| row.get(0))?)
        })
    }

    /// A program of a job has run for this much longer. Kept so that a crash does not make a time limit endless.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn note_ran(&self, id: &JobId, more: Duration) -> Result<(), QueueError> {
        self.0.write(|transaction| {
            let values = params![id.as_str(), row::millis(more)];
            transaction.execute("UPDATE job SET ran = ran + ?2 WHERE id = ?1", values)?;
            Ok(())
        })
    }

    /// The program of a job ended. Returns the job as it is now.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job, it was not running, or the database fails.
    pub fn ended(&self, id: &JobId, outcome: &Outcome, now: i64) -> Result<Job, QueueError> {
        self.0.write(|transaction| {
            let mut job = find(transaction, id)?;
            job.ran = job.ran.saturating_add(outcome.ran);
            let mut ending = outcome.ending;
            let mut not_before = now;
            if ending == Ending::Retry {
                job.failures = if outcome.lasted >= SETTLED { 1 } else { job.failures.saturating_add(1) };
                if job.retry.allows(job.failures) {
                    not_before = now.saturating_add(row::millis(job.retry.delay(job.failures)));
                } else {
                    ending = Ending::Failure;
                }
            }
            job.state = job.state.after(Event::Ended(ending))?;
            job.placement = None;
            job.not_before = not_before;
            job.reason.clone_from(&outcome.reason);
            let message = told(&job, ending);
            save(transaction, &mut job, now, &message)?;
            Ok(job)
        })
    }

    /// Stops a job for a while. One that runs is `pausing` until its program has ended.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job, or its state does not take it.
    pub fn pause(&self, id: &JobId, now: i64) -> Result<Job, QueueError> {
        self.ask(id, Event::Pause, now)
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job, or its state does not take it.
    pub fn resume(&self, id: &JobId, now: i64) -> Result<Job, QueueError> {
        self.ask(id, Event::Resume, now)
    }

    /// Ends a job for good. One that runs is `cancelling` until its program has ended.
    ///
    /// # Errors
    /// [`QueueError`] when there is no such job, or its state does not take it.
    pub fn cancel(&self, id: &JobId, now: i64) -> Result<Job, QueueError> {
        self.ask(id, Event::Cancel, now)
    }

    /// Puts all jobs that ran when the last agent ended back in order: those that ran wait to be resumed. Called once,
    /// when nothing of them runs any more. Returns how many there were.
    ///
    /// # Errors
    /// [`QueueError`] when the database fails.
    pub fn recover(&self, now: i64) -> Result<usize, QueueError> {
        self.0.write(|transaction| {
            let filter = Filter {
                states: State::ALL.into_iter().filter(|state| state.holds_place()).collect(),
                limit: usize::MAX,
                ..Filter::default()
            };
            let jobs = row::before(transaction, i64::MAX, &filter)?;
            let count = jobs.len();
            for mut job in jobs {
                job.state = job.state.after(Event::Recover)?;
                job.placement = None;
                job.not_before = now;
                save(transaction, &mut job, now, "the appliance was interrupted")?;
            }
            Ok(count)
        })
    }

    fn ask(&self, id: &JobId, event: Event, now: i64) -> Result<Job, QueueError> {
        self.0.write(|transaction| {
            let mut job = find(transaction, id)?;
            let next = job.state.after(event)?;
            if next != job.state {
                if event == Event::Resume {
                    job.failures = 0;
                    job.not_before = now;
                    job.reason = None;
                }
                job.state = next;
                save(transaction, &mut job, now, next.name())?;
            }
            Ok(job)
        })
    }
}

/// Holds what had not ended in a database that was made of a damaged one, until somebody resumes it, and drops what makes no
/// sense. Returns how many jobs are held.
pub(crate) fn hold(transaction: &Transaction<'_>, now: i64) -> Result<usize, DatabaseError> {
    const REASON: &str = "the job database was damaged: look at this job, then resume or cancel it";
    let mut held = 0;
    for sequence in row::sequences(transaction)? {
        match row::by_sequence(transaction, sequence) {
            Ok(job) if job.state.is_final() => {}
            Ok(mut job) => {
                job.state = State::Paused;
                job.placement = None;
                job.reason = Some(REASON.to_owned());
                row::update(transaction, &job, now)?;
                row::insert_event(transaction, sequence, now, Level::Warn, Some(job.state), REASON, None)?;
                held += 1;
            }
            Err(_) => row::delete(transaction, sequence)?,
        }
    }
    Ok(held)
}

/// What the event of an ending says.
fn told(job: &Job, ending: Ending) -> String {
    let reason = job.reason.as_deref();
    match (job.state, ending) {
        (State::Queued, Ending::Retry) => {
            let delay = Retry::delay(job.retry, job.failures).as_secs_f64();
            let reason = reason.unwrap_or("it failed");
            format!("{reason}; attempt {} follows after {delay} s", job.failures.saturating_add(1))
        }
        (state, _) => reason.map_or_else(|| state.name().to_owned(), |reason| format!("{state}: {reason}")),
    }
}

fn find(transaction: &Transaction<'_>, id: &JobId) -> Result<Job, QueueError> {
    row::by_id(transaction, id)?.ok_or_else(|| QueueError::NoJob(id.clone()))
}

/// Writes what may change of a job, and the event that says so.
fn save(transaction: &Transaction<'_>, job: &mut Job, now: i64, message: &str) -> Result<(), QueueError> {
    if job.state.is_final() {
        job.finished_at = Some(now);
    }
    row::update(transaction, job, now)?;
    let level = if job.state == State::Failed { Level::Error } else { Level::Info };
    row::insert_event(transaction, job.sequence, now, level, Some(job.state), message, None)?;
    Ok(())
}

/// A placement of a job that is claimed. Its event keeps the GPUs, which the job itself has only while it runs.
fn start(transaction: &Transaction<'_>, job: &mut Job, placement: Placement, now: i64) -> Result<(), QueueError> {
    job.state = job.state.after(Event::Claim)?;
    let place = match placement.slots.as_slice() {
        [] => "started".to_owned(),
        slots => format!("started on {}", slots.join(", ")),
    };
    let gpus = &placement.slots;
    let data = (!gpus.is_empty()).then(|| serde_json::json!({"gpus": gpus}).to_string());
    job.placement = Some(placement);
    job.starts = job.starts.saturating_add(1);
    job.started_at = job.started_at.or(Some(now));
    job.reason = None;
    row::update(transaction, job, now)?;
    row::insert_event(transaction, job.sequence, now, Level::Info, Some(job.state), &place, data.as_deref())?;
    Ok(())
}
