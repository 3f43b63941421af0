//! Choosing what starts.

use super::{Filter, QueueError, row, save, start};
use crate::{
    identifier::JobId,
    job::{Job, Kind},
    placement::{Decision, Holding, Machine, Waiting, place},
    state::{Event, State},
};
use rusqlite::Transaction;
use std::collections::BTreeMap;

/// A job that has waited for room this long has what it needs kept for it, in milliseconds.
const OVERDUE: i64 = 10 * 60 * 1000;
/// Most waiting jobs that are looked at, the most urgent first.
const MAX_LOOKED_AT: i64 = 1000;

/// Marks every job that starts now as running.
pub fn claim(transaction: &Transaction<'_>, machine: &Machine, now: i64) -> Result<Vec<Job>, QueueError> {
    fail_orphans(transaction, now)?;
    let (mut jobs, decision) = decide(transaction, machine, now)?;
    let mut started = Vec::new();
    for (sequence, placement) in decision.starts {
        if let Some(index) = jobs.iter().position(|job| job.sequence == sequence) {
            let mut job = jobs.swap_remove(index);
            start(transaction, &mut job, placement, now)?;
            started.push(job);
        }
    }
    Ok(started)
}

/// What each job that could start waits for.
pub fn waits(
    transaction: &Transaction<'_>,
    machine: &Machine,
    now: i64,
) -> Result<BTreeMap<JobId, String>, QueueError> {
    let (jobs, decision) = decide(transaction, machine, now)?;
    let mut names: BTreeMap<i64, JobId> = jobs.into_iter().map(|job| (job.sequence, job.id)).collect();
    let told = |(sequence, wait)| Some((names.remove(&sequence)?, ToString::to_string(&wait)));
    Ok(decision.waits.into_iter().filter_map(told).collect())
}

/// The jobs that could start, and what is decided about them.
fn decide(transaction: &Transaction<'_>, machine: &Machine, now: i64) -> Result<(Vec<Job>, Decision<i64>), QueueError> {
    let holding = Filter {
        states: State::ALL.into_iter().filter(|state| state.holds_place()).collect(),
        limit: usize::MAX,
        ..Filter::default()
    };
    // One that was told to end does.
    let held = |job: Job| {
        let is_endless = job.kind == Kind::Serve && job.state == State::Running;
        Some(Holding { placement: job.placement?, is_endless })
    };
    let running: Vec<Holding> = row::before(transaction, i64::MAX, &holding)?.into_iter().filter_map(held).collect();
    let ready = row::ready(transaction, now, MAX_LOOKED_AT)?;
    let waiting: Vec<Waiting<i64>> = ready
        .iter()
        .map(|(job, queued_at)| Waiting {
            id: job.sequence,
            demand: job.demand,
            is_overdue: now.saturating_sub((*queued_at).max(job.not_before)) > OVERDUE,
        })
        .collect();
    let decision = place(machine, &running, &waiting);
    Ok((ready.into_iter().map(|(job, _)| job).collect(), decision))
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
