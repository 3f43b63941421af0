//! Jobs that take more than is good.

use crate::{
    MACHINE,
    machine::{OVER, Site},
};
use gapctl::client::ClientError;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn jobs_that_take_too_much_end_and_nobody_else_notices() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();

    let memory = site.run("memory", json!({"memory": 128 << 20, "attempts": 1}));
    let ended = site.wait(&memory, OVER);
    assert_eq!(ended["state"], "failed", "{ended}\n{}", site.log(&memory));
    assert!(ended["reason"].as_str().unwrap().contains("memory"), "{ended}");
    site.still_works();

    let forks = site.run("forks", json!({"memory": 256 << 20, "attempts": 1}));
    let ended = site.wait(&forks, OVER);
    assert_eq!(ended["state"], "failed", "{ended}");
    site.still_works();

    let disk = site.run("disk", json!({}));
    let ended = site.wait(&disk, OVER);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(site.log(&disk).contains("No space left"), "{}", site.log(&disk));
    // The disk is full; what the appliance itself writes still finds room.
    site.still_works();
    drop(machine);
    let machine = site.switch_on();
    assert_eq!(site.wait(&disk, OVER)["state"], "succeeded");
    site.still_works();
    let free = || site.client.get("/v1/appliance/storage").unwrap()["free"].as_u64().unwrap();
    let before = free();
    site.client.delete(&format!("/v1/appliance/jobs/{disk}/outputs")).unwrap();
    assert!(free() > before + (500 << 20), "deleting makes no room");
    let writes = site.run("hello", json!({"attempts": 1}));
    assert_eq!(site.wait(&writes, OVER)["state"], "succeeded");
    drop(machine);
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_job_that_does_not_want_to_end_is_ended() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let stubborn = site.run("stubborn", json!({}));
    site.wait_until_said(&stubborn, "up");
    let asked = Instant::now();
    site.client.post(&format!("/v1/appliance/jobs/{stubborn}/cancel"), &json!({})).unwrap();
    let ended = site.wait(&stubborn, OVER);
    assert_eq!(ended["state"], "cancelled", "{ended}");
    assert!(asked.elapsed() >= Duration::from_secs(25), "it was given no time to end");

    // One more that will not end, and the machine is switched off under it.
    let stubborn = site.run("stubborn", json!({}));
    site.wait_until_said(&stubborn, "up");
    site.client.post("/v1/system/poweroff", &json!({})).unwrap();
    machine.wait_until_off();
    let machine = site.switch_on();
    assert_eq!(site.wait(&stubborn, &["running"])["starts"], 2);
    drop(machine);
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_thousand_wrong_tokens_let_nobody_in_and_lock_out_only_for_a_while() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let stranger = site.stranger();
    let mut locked_out = 0;
    for _ in 0..1000 {
        match stranger.get("/v1/models").unwrap_err() {
            ClientError::Refused { status: 401, .. } => {}
            ClientError::Refused { status: 429, .. } => locked_out += 1,
            error => panic!("{error}"),
        }
    }
    assert!(locked_out > 900, "{locked_out}");
    site.client.wait_for("/v1/models", Duration::from_secs(120), |_| Some(())).unwrap();
    drop(machine);
}
