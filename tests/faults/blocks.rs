//! Blocks of the medium and of the data disk that go bad.

use crate::{
    MACHINE, fixture,
    machine::{self, OVER, Site, examples},
};
use aho_corasick::AhoCorasick;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Duration,
};

/// What the job `fragile` prints, from a layer of its image.
const LINE: &str = "This line is whole: nothing of it was changed on the medium.";
/// A text in a program of the OS image that nothing runs.
const OF_THE_SYSTEM: &[u8] = b"add_key -S salt";
/// Bytes of a block of the data disk's file system, and of a page of the database.
const BLOCK: u64 = 4096;
/// First byte of a page with rows of a table (SQLite's file format, 1.6).
const ROWS: u8 = 13;

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_bad_block_of_a_layer_is_told_and_never_gives_wrong_bytes() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let medium = site.file("medium.gap");
    fs::copy(machine::artifact(), &medium).unwrap();
    let running = site.switch_on_with(&medium, None);
    assert_eq!(fragile(&site), "succeeded");

    // Under the running machine: what it has in memory may still be right.
    let spoilt = [flip(&medium, LINE.as_bytes()), flip(&medium, OF_THE_SYSTEM)].concat();
    for _ in 0..3 {
        fragile(&site);
    }
    drop(running);

    // At rest: nothing is in memory any more.
    let running = site.switch_on_with(&medium, None);
    assert_eq!(fragile(&site), "failed");
    let is_told = |system: &Value| {
        let layers = system["layers"].as_array().unwrap().iter();
        let bad: Vec<Value> = layers.filter(|layer| layer["state"] == "damaged").cloned().collect();
        (bad.len() == 1 && !bad[0]["damaged"].as_array().unwrap().is_empty()).then_some(())
    };
    site.client.wait_for("/v1/system", Duration::from_secs(180), is_told).unwrap();
    assert_eq!(site.client.get("/healthz").unwrap()["status"], "degraded");
    site.still_works();
    drop(running);

    spoilt.into_iter().for_each(|offset| flip_at(&medium, offset));
    let running = site.switch_on_with(&medium, None);
    assert_eq!(fragile(&site), "succeeded");
    drop(running);
}

/// Runs the job that reads the file that may be damaged, and gives its state. What it printed is right, or nothing.
#[track_caller]
fn fragile(site: &Site) -> String {
    let job = site.run("fragile", json!({"attempts": 1}));
    let ended = site.wait(&job, OVER);
    let log = site.log(&job);
    for line in log.lines() {
        assert!(line == LINE || line.contains("Input/output error"), "{line}");
    }
    let state = ended["state"].as_str().unwrap().to_owned();
    assert_eq!(state == "succeeded", log.lines().filter(|line| *line == LINE).count() == 100, "{ended}\n{log}");
    state
}

/// Changes a bit in the first of these texts wherever the artifact holds it. Gives the places.
fn flip(artifact: &Path, text: &[u8]) -> Vec<u64> {
    let bytes = fs::read(artifact).unwrap();
    let all: Vec<usize> = AhoCorasick::new([text]).unwrap().find_iter(&bytes).map(|found| found.start()).collect();
    // A text stands many times in the same file; one of them is enough.
    let mut places: Vec<u64> = Vec::new();
    for place in all {
        let place = place as u64;
        if places.last().is_none_or(|last| place - last > 1 << 16) {
            places.push(place);
        }
    }
    assert!(!places.is_empty(), "the artifact does not hold {}", String::from_utf8_lossy(text));
    places.iter().for_each(|&place| flip_at(artifact, place));
    places
}

fn flip_at(file: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_bad_block_of_the_database_opens_no_door_and_starts_nothing() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let made = site.client.post("/v1/appliance/tokens", &json!({"name": "ops", "role": "operator"})).unwrap();
    let token = made["token"].as_str().unwrap();
    let rows = site.file("rows.jsonl");
    examples(&rows, 40);
    let file = site.client.bring(&rows, "fine-tune").unwrap();
    site.wait_until_good(&file.id);
    let done: Vec<String> = (0..12).map(|_| site.run("nothing", json!({}))).collect();
    done.iter().for_each(|job| drop(site.wait(job, OVER)));
    let counting = site.run("count", json!({"env": {"STEPS": "300"}}));
    site.wait(&counting, &["running"]);
    drop(machine);
    // A start writes into the database itself what the power cut left in its log.
    drop(site.switch_on());

    spoil_page(&site.file("data.img"), done[2].as_bytes(), counting.as_bytes());
    let machine = site.switch_on();
    assert!(site.console().contains("THE JOB DATABASE IS DAMAGED"), "{}", site.console());
    assert!(site.with_token(token).get("/v1/models").is_err(), "a token may be one that was revoked");
    let held = site.client.get(&format!("/v1/appliance/jobs/{counting}")).unwrap();
    assert_eq!(held["state"], "paused", "{held}");
    assert!(held["reason"].as_str().unwrap().contains("damaged"), "{held}");
    site.client.has(&file);
    site.wait_until_good(&file.id);
    let left = done.iter().filter(|job| site.client.get(&format!("/v1/appliance/jobs/{job}")).is_ok()).count();
    assert!(left < done.len(), "the bad page held no job");
    site.client.post(&format!("/v1/appliance/jobs/{counting}/resume"), &json!({})).unwrap();
    let ended = site.wait(&counting, OVER);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", site.log(&counting));
    site.still_works();
    drop(machine);
    let machine = site.switch_on();
    assert_eq!(site.client.get("/healthz").unwrap()["jobs"], "ready");
    drop(machine);
}

/// Overwrites the pages of the database on the disk that hold rows, and one of these words and not the other. Pages that lead
/// to others hold old words too, in room that is not used any more.
fn spoil_page(disk: &Path, holds: &[u8], not: &[u8]) {
    // Takes over what the file system's journal holds. It says by its status that it did.
    let _ = Command::new("e2fsck").args(["-f", "-p"]).arg(disk).output().unwrap();
    let listed = fixture::succeed(Command::new("debugfs").args(["-R", "blocks /jobs.db"]).arg(disk));
    let image = File::options().read(true).write(true).open(disk).unwrap();
    let contains = |page: &[u8], word: &[u8]| page.windows(word.len()).any(|window| window == word);
    let mut spoilt = 0;
    for block in fixture::stdout(&listed).split_ascii_whitespace() {
        let offset = block.parse::<u64>().unwrap() * BLOCK;
        let mut page = [0; BLOCK as usize];
        image.read_exact_at(&mut page, offset).unwrap();
        if page[0] == ROWS && contains(&page, holds) && !contains(&page, not) {
            image.write_all_at(&[0xa5; BLOCK as usize], offset).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "no page of the database holds the word alone");
}
