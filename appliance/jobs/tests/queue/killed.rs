//! A process that works on a queue and is killed at random moments: all that it had reported is there, and nothing is
//! between two states.

use crate::{job, machine, outcome};
use gap_jobs::{Database, JobId, Queue, Retry, State, queue::Filter, state::Ending};
use rand::Rng;
use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Names the database to the process that is going to be killed.
const DATABASE: &str = "GAP_TEST_KILLED_DATABASE";
const ROUNDS: usize = 12;

/// The process that is killed: without the variable it is no test and does nothing.
#[test]
fn worker_that_is_killed() {
    let Some(path) = env::var_os(DATABASE) else { return };
    let queue = Queue::new(Database::open(Path::new(&path)).unwrap());
    queue.recover(0).unwrap();
    let mut random = rand::thread_rng();
    let say = |id: &JobId, state: State| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "reported {id} {state}").unwrap();
        out.flush().unwrap();
    };
    loop {
        let new = gap_jobs::NewJob { retry: Retry { attempts: 2, first_delay_ms: 0, longest_delay_ms: 0 }, ..job("x") };
        let submitted = queue.submit(&new, 0).unwrap();
        say(&submitted.id, submitted.state);
        for claimed in queue.claim(&machine(0), 0).unwrap() {
            say(&claimed.id, claimed.state);
            let endings = [Ending::Success, Ending::Stopped, Ending::Retry, Ending::Failure];
            match random.gen_range(0..6) {
                n @ 0..4 => {
                    let ended = queue.ended(&claimed.id, &outcome(endings[n]), 0).unwrap();
                    say(&ended.id, ended.state);
                }
                4 => say(&claimed.id, queue.cancel(&claimed.id, 0).unwrap().state),
                _ => say(&claimed.id, queue.pause(&claimed.id, 0).unwrap().state),
            }
        }
        for job in queue
            .jobs(&Filter { states: vec![State::Pausing, State::Cancelling], limit: 9, ..Filter::default() })
            .unwrap()
        {
            let ended = queue.ended(&job.id, &outcome(Ending::Stopped), 0).unwrap();
            say(&ended.id, ended.state);
        }
    }
}

#[test]
fn nothing_that_was_reported_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let mut reported: BTreeMap<JobId, State> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut worker = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed::worker_that_is_killed", "--nocapture"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let reader = thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
        thread::sleep(Duration::from_millis(rand::thread_rng().gen_range(150..500)));
        worker.kill().unwrap();
        worker.wait().unwrap();
        for line in reader.join().unwrap() {
            let mut words = line.split(' ').skip_while(|word| *word != "reported").skip(1);
            if let (Some(id), Some(state)) = (words.next(), words.next()) {
                reported.insert(JobId::try_from(id.to_owned()).unwrap(), state.parse().unwrap());
            }
        }
        let database = Database::open(&path).unwrap();
        database.check().unwrap();
        let queue = Queue::new(database);
        let jobs = queue.jobs(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap();
        let found: BTreeMap<JobId, State> = jobs.iter().map(|job| (job.id.clone(), job.state)).collect();
        for (id, state) in &reported {
            let found = found.get(id).unwrap_or_else(|| panic!("{id} was reported as {state} and is gone"));
            assert!(!state.is_final() || found == state, "{id} was {state} and is {found}");
        }
        for job in &jobs {
            let events = queue.events(&job.id, 0, usize::MAX).unwrap();
            assert_eq!(events.iter().rev().find_map(|event| event.state), Some(job.state));
        }
        queue.recover(0).unwrap();
        for job in queue.jobs(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap() {
            assert!(!job.state.holds_place());
            reported.insert(job.id, job.state);
        }
    }
    assert!(reported.len() > ROUNDS, "the worker hardly worked: {} jobs", reported.len());
}
