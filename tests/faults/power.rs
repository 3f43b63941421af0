//! Power that goes away.

use crate::{
    MACHINE,
    machine::{LITTLE, Machine, OVER, STEPS, Site, examples},
    uploads::{Until, Uploads},
};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    mem, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often the power is cut, unless `GAPIMAGE_POWER_CUTS` says otherwise.
const CUTS: u64 = 20;
/// The power is cut at any moment of so many milliseconds after all goes on.
const MOMENTS: u64 = 8_000;
/// Longest that it may take after a start until all goes on.
const GOES_ON: Duration = Duration::from_secs(300);
/// Longest that an answer may take.
const ANSWERS: Duration = Duration::from_secs(120);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Moments that nobody chose. `GAPIMAGE_POWER_SEED` gives those of another run once more (splitmix64, Steele et al. 2014).
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = told("GAPIMAGE_POWER_SEED").unwrap_or_else(now);
        println!("GAPIMAGE_POWER_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % MOMENTS)
    }
}

/// A job that always runs: one that is over is followed by the next of its kind.
struct Always<'a> {
    site: &'a Site,
    submit: &'a dyn Fn() -> String,
    now: String,
    before: Vec<String>,
}

impl<'a> Always<'a> {
    fn new(site: &'a Site, submit: &'a dyn Fn() -> String) -> Self {
        Self { site, submit, now: submit(), before: Vec::new() }
    }

    /// The job as it is now; an appliance with much to do may take its time to answer.
    fn look(&self) -> Value {
        let path = format!("/v1/appliance/jobs/{}", self.now);
        self.site.client.wait_for(&path, ANSWERS, |job| Some(job.clone())).unwrap()
    }

    fn runs(&mut self) -> bool {
        let job = self.look();
        if job["state"] == "succeeded" {
            self.before.push(mem::replace(&mut self.now, (self.submit)()));
        }
        job["state"] == "running"
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.before.iter().chain([&self.now])
    }
}

/// Cuts the power again and again, each time at some moment after `job` and what `goes_on` looks at went on. After each start
/// the job is what it was, or further, and what the appliance was given is there.
fn cut_the_power(
    site: &Site,
    mut machine: Machine,
    job: &mut Always<'_>,
    goes_on: impl Fn() -> bool,
    mut is_whole: impl FnMut(),
) -> Machine {
    let tokens = json!({"name": "ops", "role": "operator"});
    let token = site.client.post("/v1/appliance/tokens", &tokens).unwrap()["id"].clone();
    let mut moments = Moments::new();
    for cut in 1..=told("GAPIMAGE_POWER_CUTS").unwrap_or(CUTS) {
        let until = Instant::now() + GOES_ON;
        while !(job.runs() && goes_on()) {
            assert!(Instant::now() < until, "it does not go on: {}", job.look());
            thread::sleep(PAUSE);
        }
        let moment = moments.next();
        thread::sleep(moment);
        let before = job.look();
        let step = site.steps(&job.now).pop().unwrap_or(0);
        drop(machine);
        let (state, start) = (&before["state"], starts(&before));
        println!("cut {cut}, {} ms after all went on: {state} for the {start}. time, step {step}", moment.as_millis());
        machine = site.switch_on();

        let after = job.look();
        assert!(starts(&after) >= start, "{before}\n{after}");
        let was_over = OVER.contains(&state.as_str().unwrap());
        assert!(!was_over || *state == after["state"], "{before}\n{after}");
        assert!(after["state"] != "failed" && after["state"] != "cancelled", "{after}");
        let is_there =
            |listed: &Value| listed["data"].as_array()?.iter().any(|listed| listed["id"] == token).then_some(());
        site.client.wait_for("/v1/appliance/tokens", ANSWERS, is_there).unwrap();
        is_whole();
    }
    machine
}

#[test]
#[ignore = "boots a machine many times, in `make test-all`"]
fn training_survives_power_cuts_at_any_moment() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let rows = site.file("rows.jsonl");
    examples(&rows, 10);
    let kept = site.client.bring(&rows, "fine-tune").unwrap();
    site.wait_until_good(&kept.id);
    let undisturbed = site.trained_undisturbed(&kept.id);

    let train = || site.train(&kept.id, STEPS);
    let mut training = Always::new(&site, &train);
    let machine = cut_the_power(&site, machine, &mut training, || true, || site.client.has(&kept));
    training.all().for_each(|job| site.trained_as_if_nothing_had_been(job, &undisturbed));
    println!("trained {} times", training.all().count());
    site.audit_is_whole();
    site.still_works();
    drop(machine);
}

#[test]
#[ignore = "boots a machine many times, in `make test-all`"]
fn uploads_and_a_job_that_counts_survive_power_cuts_at_any_moment() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let count = || site.run("count", json!({"env": {"STEPS": "200"}, "memory": LITTLE}));
    let mut counting = Always::new(&site, &count);
    let uploads = Uploads::new(site.client.clone(), site.file("files"));
    let sent = Cell::new(uploads.sent());
    let machine = thread::scope(|scope| {
        let _until = Until(&uploads);
        scope.spawn(|| uploads.bring());
        let is_whole = || {
            uploads.are_whole();
            sent.set(uploads.sent());
            println!("{} bytes of file {} are there", sent.get().1, sent.get().0);
        };
        cut_the_power(&site, machine, &mut counting, || uploads.sent() != sent.get(), is_whole)
    });

    let mut said = String::new();
    for job in counting.all() {
        let ended = site.wait_within(Duration::from_secs(300), job, OVER);
        let this = site.log(job);
        assert!(ended["state"] == "succeeded" && this.contains("counted 200"), "{ended}\n{this}");
        said += &this;
    }
    assert!(said.contains("goes on from"), "what was counted was never kept: {said}");
    let (whole, listed) = (uploads.are_whole(), site.client.get("/v1/files").unwrap());
    assert_eq!(listed["data"].as_array().unwrap().len(), whole.len(), "what was begun again is there once: {listed}");
    println!("counted {} times, {} files", counting.all().count(), uploads.sent().0);
    site.audit_is_whole();
    site.still_works();
    drop(machine);
}

fn starts(job: &Value) -> u64 {
    job["starts"].as_u64().unwrap()
}
