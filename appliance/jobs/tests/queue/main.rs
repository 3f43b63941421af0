//! The queue from outside: what it does with jobs, and what is left after its process is killed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod killed;
mod life;
mod model;
mod order;

use gap_jobs::{Database, Demand, Kind, Machine, NewJob, Queue, Retry, Slot, queue::Outcome, state::Ending};
use std::time::Duration;

/// A queue in memory.
pub fn queue() -> Queue {
    Queue::new(Database::in_memory().unwrap())
}

/// A job that needs nothing.
pub fn job(name: &str) -> NewJob {
    NewJob {
        kind: Kind::Train,
        name: name.into(),
        request: "{}".into(),
        demand: Demand::default(),
        priority: 0,
        retry: Retry::NEVER,
        time_limit: None,
        needs: Vec::new(),
    }
}

/// A machine with this many GPUs of 80 units, 1000 units of memory and room for four jobs.
pub fn machine(gpus: usize) -> Machine {
    let slots = (0..gpus).map(|index| Slot { name: format!("gpu{index}"), memory: 80 }).collect();
    Machine { slots, memory: 1000, jobs: 4 }
}

/// An ending after a second.
pub fn outcome(ending: Ending) -> Outcome {
    let second = Duration::from_secs(1);
    Outcome { ending, reason: None, ran: second, lasted: second }
}
