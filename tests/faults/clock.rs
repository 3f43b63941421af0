//! A clock that jumps from one start to the next.

use crate::{
    MACHINE,
    machine::{OVER, Site, artifact},
};
use serde_json::json;

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_clock_that_jumps_keeps_nothing_waiting_and_opens_nothing_again() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on_with(artifact(), Some("2035-03-01T00:00:00"));
    let short = json!({"name": "short", "role": "viewer", "expires_in": 86_400});
    let short = site.client.post("/v1/appliance/tokens", &short).unwrap()["token"].as_str().unwrap().to_owned();
    let long = json!({"name": "long", "role": "viewer"});
    let long = site.client.post("/v1/appliance/tokens", &long).unwrap()["token"].as_str().unwrap().to_owned();
    let opens = |token: &str| site.with_token(token).get("/v1/models").is_ok();
    assert!(opens(&short) && opens(&long));
    let failing = site.run("fails", json!({"attempts": 3}));
    site.wait_until_said(&failing, "fails");
    let limited = site.run("count", json!({"env": {"STEPS": "200"}, "time_limit_seconds": 3600}));
    site.wait(&limited, &["running"]);
    drop(machine);

    // Nine years on: what is over is over, and no time limit has passed that did not pass while the job ran.
    let machine = site.switch_on_with(artifact(), Some("2044-03-01T00:00:00"));
    assert!(!opens(&short) && opens(&long));
    site.wait(&limited, &["running", "succeeded"]);
    let again = site.run("fails", json!({"attempts": 3}));
    site.wait_until_said(&again, "fails");
    drop(machine);

    // Back again: a wait that was to end in nine years is none, and what was over stays over.
    let machine = site.switch_on_with(artifact(), Some("2035-03-01T00:10:00"));
    assert!(!opens(&short), "a token that was over opens again");
    assert!(opens(&long));
    for job in [&failing, &again] {
        assert_eq!(site.wait(job, OVER)["state"], "failed");
    }
    let ended = site.wait(&limited, OVER);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", site.log(&limited));
    site.still_works();

    site.audit_is_whole();
    let jobs = site.client.get("/v1/appliance/jobs").unwrap();
    let ids: Vec<&str> = jobs["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(
        &ids[1..],
        [again.as_str(), &limited, &failing],
        "the last submitted comes first whatever the clock said"
    );
    drop(machine);
}
