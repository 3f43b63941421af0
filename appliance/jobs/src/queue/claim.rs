//! Choosing what starts.

use super::{Filter, QueueError, row, save, start};
use crate::{
    job::Job,
    placement::{Machine, Placement, Waiting, place},
    state::{Event, State},
};
use rusqlite::Transaction;

/// A job that has waited for room this long lets nothing behind it take room, in milliseconds.
const OVERDUE: i64 = 10 * 60 * 1000;
/// Most waiting jobs that are looked at, the most urgent first.
const MAX_LOOKED_AT: i64 = 1000;

/// Marks every job that starts now as running.
pub fn claim(transaction: &Transaction<'_>, machine: &Machine, now: i64) -> Result<Vec<Job>, QueueError> {
    fail_orphans(transaction, now)?;
    let holding = Filter {
        states: State::ALL.into_iter().filter(|state| state.holds_place()).collect(),
        limit: usize::MAX,
        ..Filter::default()
    };
    let running: Vec<Placement> =
        row::before(transaction, i64::MAX, &holding)?.into_iter().filter_map(|job| job.placement).collect();
    let ready = row::ready(transaction, now, MAX_LOOKED_AT)?;
    let waiting: Vec<Waiting<i64>> = ready
        .iter()
        .map(|(job, queued_at)| Waiting {
            id: job.sequence,
            demand: job.demand,
            is_overdue: now.saturating_sub((*queued_at).max(job.not_before)) > OVERDUE,
        })
        .collect();
    let mut jobs: Vec<Job> = ready.into_iter().map(|(job, _)| job).collect();
    let mut started = Vec::new();
    for (sequence, placement) in place(machine, &running, &waiting) {
        if let Some(index) = jobs.iter().position(|job| job.sequence == sequence) {
            let mut job = jobs.swap_remove(index);
            start(transaction, &mut job, placement, now)?;
            started.push(job);
        }
    }
    Ok(started)
}

/// Fails what waits for something that will never come, and what waits for that in turn.
fn fail_orphans(transaction: &Transaction<'_>, now: i64) -> Result<(), QueueError> {
    loop {
        let orphans = row::orphans(transaction)?;
        if orphans.is_empty() {
            return Ok(());
        }
        for (mut job, needed) in orphans {
            job.state = job.state.after(Event::Orphan)?;
            let reason = format!("it needs the job {needed}, which did not succeed");
            job.reason = Some(reason.clone());
            save(transaction, &mut job, now, &reason)?;
        }
    }
}
