//! The dispatcher with real processes: shell scripts stand in for jobs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod processes;

use gap_jobs::{
    Database, Demand, Dispatcher, Job, JobId, Kind, Level, Machine, NewJob, Patience, Queue, Retry, Slot, State,
};
use processes::Processes;
use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Patience = Patience {
    pause: Duration::from_millis(700),
    cancel: Duration::from_millis(700),
    drain: Duration::from_millis(700),
    shutdown: Duration::from_millis(700),
};

/// A dispatcher over a queue in memory, for two jobs at once.
fn dispatcher(queue: &Queue) -> Dispatcher {
    start(queue, Arc::default())
}

fn start(queue: &Queue, processes: Arc<Processes>) -> Dispatcher {
    start_on(Machine { slots: Vec::new(), memory: 100, jobs: 2 }, queue, processes)
}

fn start_on(machine: Machine, queue: &Queue, processes: Arc<Processes>) -> Dispatcher {
    let complain = Box::new(|complaint| panic!("{complaint}"));
    Dispatcher::start(queue.clone(), processes, machine, PATIENCE, complain).unwrap()
}

fn queue() -> Queue {
    Queue::new(Database::in_memory().unwrap())
}

fn job(script: &str) -> NewJob {
    NewJob {
        kind: Kind::Train,
        name: "x".into(),
        request: script.into(),
        demand: Demand::default(),
        priority: 0,
        retry: Retry::NEVER,
        time_limit: None,
        needs: Vec::new(),
    }
}

fn submit(dispatcher: &Dispatcher, new: &NewJob) -> JobId {
    let id = dispatcher.queue().submit(new, gap_jobs::dispatcher::now()).unwrap().id;
    dispatcher.look();
    id
}

/// Waits until the job is in this state.
fn wait(queue: &Queue, id: &JobId, state: State) -> Job {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let job = queue.job(id).unwrap();
        if job.state == state {
            return job;
        }
        assert!(Instant::now() < until, "{id} is {} and not {state}: {:?}", job.state, job.reason);
        thread::sleep(Duration::from_millis(10));
    }
}

/// A script that stops with a checkpoint when it is told to.
const OBEDIENT: &str = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
/// A script that does not listen.
const STUBBORN: &str = "trap '' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn what_is_queued_waits_until_programs_may_be_started() {
    let (queue, processes) = (queue(), Arc::<Processes>::default());
    processes.is_held.store(true, Ordering::Relaxed);
    let dispatcher = start(&queue, Arc::clone(&processes));
    let id = submit(&dispatcher, &job("exit 0"));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(queue.job(&id).unwrap().state, State::Queued);
    processes.is_held.store(false, Ordering::Relaxed);
    dispatcher.look();
    wait(&queue, &id, State::Succeeded);
    dispatcher.stop();
}

#[test]
fn a_gpu_that_failed_is_given_to_no_job_any_more() {
    let (queue, processes) = (queue(), Arc::<Processes>::default());
    let slots = ["gpu0", "gpu1"].map(|name| Slot { name: name.into(), memory: 80 }).to_vec();
    let dispatcher = start_on(Machine { slots, memory: 100, jobs: 2 }, &queue, Arc::clone(&processes));
    let on_gpu = NewJob { demand: Demand { gpus: 1, ..Demand::default() }, ..job("sleep 0.5") };
    let place = || {
        let id = submit(&dispatcher, &on_gpu);
        let slots = wait(&queue, &id, State::Running).placement.unwrap().slots;
        wait(&queue, &id, State::Succeeded);
        slots
    };
    assert_eq!(place(), ["gpu0"]);
    processes.failed.lock().unwrap().insert("gpu0".into());
    assert_eq!(place(), ["gpu1"]);
    dispatcher.stop();
}

#[test]
fn a_job_that_is_cancelled_while_nothing_of_it_runs_is_put_away_too() {
    let (queue, processes) = (queue(), Arc::<Processes>::default());
    processes.is_held.store(true, Ordering::Relaxed);
    let dispatcher = start(&queue, Arc::clone(&processes));
    let id = submit(&dispatcher, &job("exit 0"));
    assert_eq!(dispatcher.cancel(&id).unwrap().state, State::Cancelled);
    dispatcher.stop();
    assert_eq!(*processes.ended.lock().unwrap(), [id]);
}

#[test]
fn exit_codes_mean_what_the_contract_says() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    for (script, state, reason) in [
        ("exit 0", State::Succeeded, ""),
        ("exit 1", State::Failed, "exit code 1"),
        ("exit 2", State::Failed, "command line or job file"),
        ("exit 3", State::Failed, "exit code 3"),
        ("kill -KILL $$", State::Failed, "signal 9"),
    ] {
        let id = submit(&dispatcher, &job(script));
        let job = wait(&queue, &id, state);
        assert!(job.reason.unwrap_or_default().contains(reason), "{script}");
    }
}

#[test]
fn a_failing_job_is_started_again() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let marker = tempfile::tempdir().unwrap();
    let script = format!("test -e {0}/done || {{ touch {0}/done; exit 1; }}", marker.path().display());
    let retry = Retry { attempts: 2, first_delay_ms: 10, longest_delay_ms: 10 };
    let id = submit(&dispatcher, &NewJob { retry, ..job(&script) });
    assert_eq!(wait(&queue, &id, State::Succeeded).starts, 2);
}

#[test]
fn a_pause_waits_for_the_checkpoint_and_a_resume_starts_again() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let id = submit(&dispatcher, &job(OBEDIENT));
    wait(&queue, &id, State::Running);
    thread::sleep(Duration::from_millis(200));
    dispatcher.pause(&id).unwrap();
    let job = wait(&queue, &id, State::Paused);
    assert_eq!(job.reason, None, "it ended by itself");
    dispatcher.resume(&id).unwrap();
    assert_eq!(wait(&queue, &id, State::Running).starts, 2);
    dispatcher.cancel(&id).unwrap();
    wait(&queue, &id, State::Cancelled);
}

#[test]
fn what_does_not_listen_is_ended_by_force() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let id = submit(&dispatcher, &job(STUBBORN));
    wait(&queue, &id, State::Running);
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    dispatcher.pause(&id).unwrap();
    let job = wait(&queue, &id, State::Paused);
    assert!(asked.elapsed() >= PATIENCE.pause && job.reason.unwrap().contains("by force"));
}

#[test]
fn a_time_limit_ends_a_job() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let limited = NewJob { time_limit: Some(Duration::from_millis(300)), retry: Retry::ALWAYS, ..job(OBEDIENT) };
    let id = submit(&dispatcher, &limited);
    assert!(wait(&queue, &id, State::Failed).reason.unwrap().contains("time limit"));
}

#[test]
fn a_server_that_ends_is_started_again() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let retry = Retry { first_delay_ms: 10, longest_delay_ms: 10, ..Retry::ALWAYS };
    let id = submit(&dispatcher, &NewJob { kind: Kind::Serve, retry, ..job("sleep 0.05") });
    let until = Instant::now() + Duration::from_secs(20);
    while queue.job(&id).unwrap().starts < 3 {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(10));
    }
    dispatcher.cancel(&id).unwrap();
    wait(&queue, &id, State::Cancelled);
}

#[test]
fn at_the_end_of_the_agent_jobs_write_their_checkpoint_and_go_on_later() {
    let queue = queue();
    let first = dispatcher(&queue);
    let id = submit(&first, &job(OBEDIENT));
    wait(&queue, &id, State::Running);
    thread::sleep(Duration::from_millis(200));
    first.stop();
    assert_eq!(queue.job(&id).unwrap().state, State::Queued);
    let second = dispatcher(&queue);
    assert_eq!(wait(&queue, &id, State::Running).starts, 2);
    second.cancel(&id).unwrap();
    wait(&queue, &id, State::Cancelled);
}

#[test]
fn what_a_program_tells_becomes_events() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let id = submit(&dispatcher, &job("echo one; echo two"));
    wait(&queue, &id, State::Succeeded);
    let events = queue.events(&id, 0, 100).unwrap();
    let told: Vec<(&str, Level)> = events
        .iter()
        .filter(|event| event.state.is_none())
        .map(|event| (event.message.as_str(), event.level))
        .collect();
    assert_eq!(told, [("one", Level::Info), ("two", Level::Info)]);
}

#[test]
fn what_cannot_be_started_fails_or_is_tried_again() {
    let queue = queue();
    let dispatcher = dispatcher(&queue);
    let id = submit(&dispatcher, &job("unstartable"));
    assert_eq!(wait(&queue, &id, State::Failed).reason.as_deref(), Some("there is no such image"));
}
