//! Random operations on a queue: what must hold after each, whatever came before.

use crate::{job, outcome};
use gap_jobs::{
    Database, Demand, Job, JobId, Machine, NewJob, Queue, Retry, Slot, State, queue::Filter, state::Ending,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Submit {
        gpus: u32,
        memory: u64,
        priority: i32,
        attempts: u32,
        need: Option<usize>,
    },
    Claim,
    End {
        job: usize,
        ending: Ending,
    },
    Pause(usize),
    Resume(usize),
    Cancel(usize),
    /// The process ends and the next one opens the database.
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![Just(Ending::Success), Just(Ending::Stopped), Just(Ending::Retry), Just(Ending::Failure)];
    prop_oneof![
        4 => (0..3_u32, 0..400_u64, -2..3_i32, 0..3_u32, proptest::option::of(any::<usize>())).prop_map(
            |(gpus, memory, priority, attempts, need)| Step::Submit { gpus, memory, priority, attempts, need }
        ),
        4 => Just(Step::Claim),
        4 => (any::<usize>(), ending).prop_map(|(job, ending)| Step::End { job, ending }),
        1 => any::<usize>().prop_map(Step::Pause),
        1 => any::<usize>().prop_map(Step::Resume),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => Just(Step::Restart),
    ]
}

fn all(queue: &Queue) -> BTreeMap<JobId, Job> {
    let jobs = queue.jobs(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap();
    jobs.into_iter().map(|job| (job.id.clone(), job)).collect()
}

/// What is true of every queue at every moment.
fn holds(queue: &Queue, machine: &Machine, before: &BTreeMap<JobId, Job>) -> BTreeMap<JobId, Job> {
    let now = all(queue);
    let running: Vec<&Job> = now.values().filter(|job| job.state.holds_place()).collect();
    let mut slots: Vec<&String> = running.iter().flat_map(|job| &job.placement.as_ref().unwrap().slots).collect();
    let given = slots.len();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), given, "a GPU was given twice");
    assert!(running.iter().map(|job| job.demand.memory).sum::<u64>() <= machine.memory);
    assert!(running.len() <= machine.jobs);
    for job in now.values() {
        assert_eq!(job.placement.is_some(), job.state.holds_place());
        assert_eq!(job.finished_at.is_some(), job.state.is_final());
        // The history says the same as the state, and is a path that the states allow.
        let states: Vec<State> =
            queue.events(&job.id, 0, usize::MAX).unwrap().iter().filter_map(|event| event.state).collect();
        assert_eq!(states.first(), Some(&State::Queued));
        assert_eq!(states.last(), Some(&job.state));
        if job.state.holds_place() {
            for need in &job.needs {
                assert_eq!(now[need].state, State::Succeeded);
            }
        }
    }
    for (id, old) in before {
        assert!(!old.state.is_final() || now[id] == *old, "a final job changed, or is gone");
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_requests_breaks_the_queue(steps in proptest::collection::vec(steps(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.db");
        let slots = (0..3).map(|index| Slot { name: format!("gpu{index}"), memory: 80 }).collect();
        let machine = Machine { slots, memory: 700, jobs: 3 };
        let mut queue = Queue::new(Database::open(&path).unwrap());
        let mut known = BTreeMap::new();
        let mut order: Vec<JobId> = Vec::new();
        for (now, step) in (0_i64..).zip(steps) {
            let now = now * 1000;
            let at = |index: usize| order.get(index % order.len().max(1)).cloned();
            match step {
                Step::Submit { gpus, memory, priority, attempts, need } => {
                    let needs = need.and_then(at).into_iter().collect();
                    let retry = Retry { attempts, first_delay_ms: 500, longest_delay_ms: 4000 };
                    let demand = Demand { gpus, gpu_memory: 0, memory };
                    let new = NewJob { demand, priority, retry, needs, ..job("x") };
                    if let Ok(job) = queue.submit(&new, now) {
                        order.push(job.id);
                    }
                }
                Step::Claim => drop(queue.claim(&machine, now).unwrap()),
                Step::End { job, ending } => drop(at(job).map(|id| queue.ended(&id, &outcome(ending), now))),
                Step::Pause(job) => drop(at(job).map(|id| queue.pause(&id, now))),
                Step::Resume(job) => drop(at(job).map(|id| queue.resume(&id, now))),
                Step::Cancel(job) => drop(at(job).map(|id| queue.cancel(&id, now))),
                Step::Restart => {
                    let before = all(&queue);
                    drop(queue);
                    let database = Database::open(&path).unwrap();
                    database.check().unwrap();
                    queue = Queue::new(database);
                    assert_eq!(all(&queue), before, "the queue is as it was");
                    queue.recover(now).unwrap();
                    assert!(all(&queue).values().all(|job| !job.state.holds_place()));
                }
            }
            known = holds(&queue, &machine, &known);
        }
    }
}
