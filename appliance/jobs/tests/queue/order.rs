//! Which job starts when.

use crate::{job, machine, outcome, queue};
use gap_jobs::{Demand, JobId, Kind, NewJob, QueueError, State, queue::Filter, state::Ending};

fn names(jobs: &[gap_jobs::Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.name.as_str()).collect()
}

#[test]
fn the_most_urgent_starts_first_and_then_the_oldest() {
    let queue = queue();
    for (name, priority) in [("old", 0), ("young", 0), ("low", -5), ("high", 5)] {
        let memory = Demand { memory: 500, ..Demand::default() };
        queue.submit(&NewJob { priority, demand: memory, ..job(name) }, 0).unwrap();
    }
    assert_eq!(names(&queue.claim(&machine(0), 0).unwrap()), ["high", "old"]);
}

#[test]
fn several_run_at_once_while_there_is_room() {
    let queue = queue();
    for n in 0..6 {
        let demand = Demand { gpus: 1, gpu_memory: 80, memory: 300 };
        queue.submit(&NewJob { demand, ..job(&n.to_string()) }, 0).unwrap();
    }
    assert_eq!(queue.claim(&machine(8), 0).unwrap().len(), 3, "memory is what limits");
    assert_eq!(queue.claim(&machine(8), 0).unwrap().len(), 0);
}

#[test]
fn a_job_waits_for_what_it_needs() {
    let queue = queue();
    let first = queue.submit(&job("first"), 0).unwrap().id;
    let second = NewJob { needs: vec![first.clone()], priority: 9, kind: Kind::Eval, ..job("second") };
    let second = queue.submit(&second, 0).unwrap();
    assert_eq!(second.needs.as_slice(), std::slice::from_ref(&first));
    assert_eq!(names(&queue.claim(&machine(0), 0).unwrap()), ["first"]);
    queue.ended(&first, &outcome(Ending::Success), 0).unwrap();
    assert_eq!(names(&queue.claim(&machine(0), 0).unwrap()), ["second"]);
}

#[test]
fn what_waits_for_a_failed_job_fails_down_the_whole_chain() {
    let queue = queue();
    let mut ids: Vec<JobId> = vec![queue.submit(&job("0"), 0).unwrap().id];
    for n in 1..4 {
        let needs = vec![ids.last().unwrap().clone()];
        ids.push(queue.submit(&NewJob { needs, ..job(&n.to_string()) }, 0).unwrap().id);
    }
    queue.pause(&ids[3], 0).unwrap();
    queue.cancel(&ids[0], 0).unwrap();
    assert!(queue.claim(&machine(0), 0).unwrap().is_empty());
    for id in &ids[1..] {
        let job = queue.job(id).unwrap();
        assert_eq!(job.state, State::Failed);
        assert!(job.reason.unwrap().contains("which did not succeed"));
    }
    let late = NewJob { needs: vec![ids[0].clone()], ..job("late") };
    assert!(matches!(queue.submit(&late, 0), Err(QueueError::Hopeless { state: State::Cancelled, .. })));
}

#[test]
fn a_large_job_is_not_overtaken_for_ever() {
    let queue = queue();
    let two = Demand { gpus: 2, ..Demand::default() };
    let one = Demand { gpus: 1, ..Demand::default() };
    queue.submit(&NewJob { demand: one, ..job("runs") }, 0).unwrap();
    assert_eq!(queue.claim(&machine(2), 0).unwrap().len(), 1);
    queue.submit(&NewJob { demand: two, ..job("large") }, 0).unwrap();
    let quick = queue.submit(&NewJob { demand: one, ..job("quick") }, 0).unwrap().id;
    assert_eq!(names(&queue.claim(&machine(2), 1).unwrap()), ["quick"]);
    queue.ended(&quick, &outcome(Ending::Success), 2).unwrap();
    queue.submit(&NewJob { demand: one, ..job("late") }, 3).unwrap();
    assert!(queue.claim(&machine(2), 11 * 60 * 1000).unwrap().is_empty());
}

#[test]
fn a_job_that_waits_for_the_end_of_a_server_says_so_and_holds_nobody_up() {
    let queue = queue();
    let memory = |memory| Demand { memory, ..Demand::default() };
    let server = NewJob { kind: Kind::Serve, demand: memory(300), ..job("server") };
    let server = queue.submit(&server, 0).unwrap().id;
    queue.claim(&machine(0), 0).unwrap();
    let all = queue.submit(&NewJob { demand: memory(1000), ..job("all") }, 0).unwrap().id;
    let late = 11 * 60 * 1000;
    queue.submit(&NewJob { demand: memory(100), ..job("late") }, late).unwrap();
    assert_eq!(names(&queue.claim(&machine(0), late).unwrap()), ["late"]);
    let waits = queue.waits(&machine(0), late).unwrap();
    assert!(waits.len() == 1 && waits[&all].contains("until somebody cancels"), "{waits:?}");
    // Once it is told to end, its end is waited for.
    queue.cancel(&server, late).unwrap();
    queue.submit(&NewJob { demand: memory(100), ..job("later") }, late).unwrap();
    assert!(queue.claim(&machine(0), late).unwrap().is_empty());
    assert_eq!(queue.waits(&machine(0), late).unwrap().len(), 2);
}

#[test]
fn lists_are_pages_from_the_last_to_the_first() {
    let queue = queue();
    for n in 0..5 {
        let kind = if n % 2 == 0 { Kind::Train } else { Kind::Serve };
        queue.submit(&NewJob { kind, ..job(&n.to_string()) }, 0).unwrap();
    }
    let page = queue.jobs(&Filter { limit: 2, ..Filter::default() }).unwrap();
    assert_eq!(names(&page), ["4", "3"]);
    let after = Some(page[1].id.clone());
    assert_eq!(names(&queue.jobs(&Filter { limit: 9, after, ..Filter::default() }).unwrap()), ["2", "1", "0"]);
    let kinds = vec![Kind::Serve];
    assert_eq!(names(&queue.jobs(&Filter { limit: 9, kinds, ..Filter::default() }).unwrap()), ["3", "1"]);
    let states = vec![State::Running, State::Paused];
    assert!(queue.jobs(&Filter { limit: 9, states, ..Filter::default() }).unwrap().is_empty());
}
