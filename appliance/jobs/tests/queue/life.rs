//! One job's life.

use crate::{job, machine, outcome, queue};
use gap_jobs::{JobId, Level, News, QueueError, Retry, State, state::Ending};
use std::time::Duration;

#[test]
fn a_job_runs_and_succeeds_and_tells_so() {
    let queue = queue();
    let submitted = queue.submit(&job("a"), 1_000).unwrap();
    assert_eq!((submitted.state, submitted.created_at), (State::Queued, 1_000));
    let claimed = queue.claim(&machine(0), 2_000).unwrap();
    assert_eq!((claimed.len(), &claimed[0].id), (1, &submitted.id));
    let news = News { level: Level::Info, message: "step 1".into(), data: Some("{\"step\":1}".into()) };
    queue.tell(&submitted.id, &[news], 2_500).unwrap();
    let ended = queue.ended(&submitted.id, &outcome(Ending::Success), 3_000).unwrap();
    assert_eq!((ended.state, ended.started_at, ended.finished_at), (State::Succeeded, Some(2_000), Some(3_000)));
    assert_eq!(queue.job(&submitted.id).unwrap(), ended);
    let events = queue.events(&submitted.id, 0, 100).unwrap();
    let states: Vec<Option<State>> = events.iter().map(|event| event.state).collect();
    assert_eq!(states, [Some(State::Queued), Some(State::Running), None, Some(State::Succeeded)]);
    let later = queue.events(&submitted.id, events[1].sequence, 1).unwrap();
    assert_eq!(later[0].data.as_deref(), Some("{\"step\":1}"));
}

#[test]
fn a_failing_job_is_tried_again_later_and_later_and_then_fails() {
    let queue = queue();
    let retry = Retry { attempts: 3, first_delay_ms: 100, longest_delay_ms: 10_000 };
    let id = queue.submit(&gap_jobs::NewJob { retry, ..job("a") }, 0).unwrap().id;
    let mut now = 0;
    for delay in [100, 200] {
        assert_eq!(queue.claim(&machine(0), now).unwrap().len(), 1);
        let ended = queue.ended(&id, &outcome(Ending::Retry), now).unwrap();
        assert_eq!((ended.state, ended.not_before), (State::Queued, now + delay));
        assert!(queue.claim(&machine(0), now + delay - 1).unwrap().is_empty());
        assert_eq!(queue.next_due(now).unwrap(), Some(now + delay));
        now += delay;
    }
    assert_eq!(queue.claim(&machine(0), now).unwrap().len(), 1);
    let ended = queue.ended(&id, &outcome(Ending::Retry), now).unwrap();
    assert_eq!((ended.state, ended.starts, ended.ran), (State::Failed, 3, Duration::from_secs(3)));
}

#[test]
fn a_clock_that_is_set_back_keeps_no_job_waiting() {
    let queue = queue();
    let retry = Retry { attempts: 3, first_delay_ms: 100, longest_delay_ms: 10_000 };
    let id = queue.submit(&gap_jobs::NewJob { retry, ..job("a") }, 1_000_000).unwrap().id;
    queue.claim(&machine(0), 1_000_000).unwrap();
    queue.ended(&id, &outcome(Ending::Retry), 1_000_000).unwrap();
    assert!(queue.claim(&machine(0), 999_000).unwrap().is_empty(), "a second is within its wait");
    assert_eq!(queue.claim(&machine(0), 5).unwrap().len(), 1);
}

#[test]
fn what_ran_for_long_begins_a_new_row_of_failures() {
    let queue = queue();
    let retry = Retry { attempts: 2, first_delay_ms: 0, longest_delay_ms: 0 };
    let id = queue.submit(&gap_jobs::NewJob { retry, ..job("a") }, 0).unwrap().id;
    for _ in 0..5 {
        queue.claim(&machine(0), 0).unwrap();
        let long = gap_jobs::queue::Outcome { lasted: Duration::from_secs(601), ..outcome(Ending::Retry) };
        assert_eq!(queue.ended(&id, &long, 0).unwrap().state, State::Queued);
    }
}

#[test]
fn a_pause_lets_the_program_end_and_a_resume_lets_it_go_on() {
    let queue = queue();
    let id = queue.submit(&job("a"), 0).unwrap().id;
    queue.claim(&machine(0), 0).unwrap();
    assert_eq!(queue.pause(&id, 1).unwrap().state, State::Pausing);
    assert_eq!(queue.pause(&id, 1).unwrap().state, State::Pausing);
    assert!(matches!(queue.resume(&id, 1), Err(QueueError::Refused(_))));
    assert_eq!(queue.ended(&id, &outcome(Ending::Stopped), 2).unwrap().state, State::Paused);
    assert!(queue.claim(&machine(0), 3).unwrap().is_empty());
    assert_eq!(queue.resume(&id, 4).unwrap().state, State::Queued);
    assert_eq!(queue.claim(&machine(0), 5).unwrap()[0].starts, 2);
}

#[test]
fn a_cancelled_job_holds_its_place_until_its_program_has_ended() {
    let queue = queue();
    let one = gap_jobs::NewJob { demand: gap_jobs::Demand { gpus: 1, ..Default::default() }, ..job("a") };
    let first = queue.submit(&one, 0).unwrap().id;
    let second = queue.submit(&one, 0).unwrap().id;
    assert_eq!(queue.claim(&machine(1), 0).unwrap().len(), 1);
    assert_eq!(queue.cancel(&first, 0).unwrap().state, State::Cancelling);
    assert!(queue.claim(&machine(1), 0).unwrap().is_empty());
    assert_eq!(queue.ended(&first, &outcome(Ending::Success), 0).unwrap().state, State::Cancelled);
    let claimed = queue.claim(&machine(1), 0).unwrap();
    assert_eq!((claimed[0].id.clone(), claimed[0].placement.clone().unwrap().slots), (second, vec!["gpu0".into()]));
}

#[test]
fn the_gpus_of_a_job_are_known_after_its_end() {
    let queue = queue();
    let one = gap_jobs::NewJob { demand: gap_jobs::Demand { gpus: 1, ..Default::default() }, ..job("a") };
    let (on_gpu, without) = (queue.submit(&one, 0).unwrap().id, queue.submit(&job("b"), 0).unwrap().id);
    queue.claim(&machine(1), 0).unwrap();
    let gpus = |id: &JobId| -> Vec<Option<String>> {
        assert_eq!(queue.ended(id, &outcome(Ending::Success), 1).unwrap().placement, None);
        queue.events(id, 0, 100).unwrap().into_iter().map(|event| event.data).collect()
    };
    assert_eq!(gpus(&on_gpu), [None, Some(r#"{"gpus":["gpu0"]}"#.to_owned()), None]);
    assert_eq!(gpus(&without), [None, None, None]);
}

#[test]
fn after_an_interruption_all_goes_on_as_it_was_wanted() {
    let queue = queue();
    let ids: Vec<JobId> = (0..3).map(|n| queue.submit(&job(&n.to_string()), 0).unwrap().id).collect();
    queue.claim(&machine(0), 0).unwrap();
    queue.pause(&ids[1], 0).unwrap();
    queue.cancel(&ids[2], 0).unwrap();
    queue.note_ran(&ids[0], Duration::from_secs(60)).unwrap();
    assert_eq!(queue.recover(1).unwrap(), 3);
    let states: Vec<State> = ids.iter().map(|id| queue.job(id).unwrap().state).collect();
    assert_eq!(states, [State::Queued, State::Paused, State::Cancelled]);
    let job = queue.job(&ids[0]).unwrap();
    assert_eq!((job.ran, job.failures, job.placement), (Duration::from_secs(60), 0, None));
    assert_eq!(queue.recover(1).unwrap(), 0);
}

#[test]
fn what_jobs_told_is_forgotten_once_it_is_too_much_and_how_they_ended_is_not() {
    let queue = queue();
    let ids: Vec<JobId> = (0..4).map(|n| queue.submit(&job(&n.to_string()), 0).unwrap().id).collect();
    queue.claim(&machine(0), 0).unwrap();
    let news = [(); 7].map(|()| News { level: Level::Info, message: "x".into(), data: None });
    for id in &ids {
        queue.tell(id, &news, 1).unwrap();
    }
    // The last to be submitted ends first; one goes on. Each that ended has ten events, three of them of its state.
    for (at, id) in [(5, &ids[3]), (6, &ids[1]), (7, &ids[0])] {
        queue.ended(id, &outcome(Ending::Success), at).unwrap();
    }
    assert_eq!(queue.ended_jobs().unwrap(), [&ids[0], &ids[1], &ids[3]].map(Clone::clone));
    let left = || ids.iter().map(|id| queue.events(id, 0, 100).unwrap().len()).collect::<Vec<_>>();
    queue.forget_told(30).unwrap();
    assert_eq!(left(), [10, 10, 9, 10]);
    queue.forget_told(20).unwrap();
    assert_eq!(left(), [10, 10, 9, 3]);
    queue.forget_told(0).unwrap();
    assert_eq!(left(), [3, 3, 9, 3]);
    let states = queue.events(&ids[0], 0, 100).unwrap().into_iter().map(|event| event.state).collect::<Vec<_>>();
    assert_eq!(states, [State::Queued, State::Running, State::Succeeded].map(Some));
}

#[test]
fn what_is_not_there_or_cannot_be_is_refused() {
    let queue = queue();
    let stranger = JobId::new(JobId::OTHER);
    assert!(matches!(queue.job(&stranger), Err(QueueError::NoJob(_))));
    assert!(matches!(queue.cancel(&stranger, 0), Err(QueueError::NoJob(_))));
    let needs = gap_jobs::NewJob { needs: vec![stranger.clone()], ..job("a") };
    assert!(matches!(queue.submit(&needs, 0), Err(QueueError::NoNeeded(id)) if id == stranger));
    assert!(queue.jobs(&gap_jobs::queue::Filter { limit: 10, ..Default::default() }).unwrap().is_empty());
    let done = queue.submit(&job("a"), 0).unwrap().id;
    queue.cancel(&done, 0).unwrap();
    assert!(matches!(queue.resume(&done, 0), Err(QueueError::Refused(_))));
    assert!(matches!(queue.ended(&done, &outcome(Ending::Success), 0), Err(QueueError::Refused(_))));
}
