//! Power that goes away.

use crate::{
    MACHINE,
    client::Api,
    machine::{LITTLE, OVER, STEPS, Site, bulk, examples},
};
use gapctl::upload::{UploadError, Uploaded};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often the power is cut, unless `GAPIMAGE_POWER_CUTS` says otherwise.
const CUTS: u32 = 20;

fn cuts() -> u32 {
    std::env::var("GAPIMAGE_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS)
}

/// Moments that differ, the same in each run.
fn moment(cut: u32) -> Duration {
    Duration::from_millis(u64::from(cut.wrapping_mul(2_654_435_761) % 6000))
}

#[test]
#[ignore = "boots a machine many times, in `make test-all`"]
fn a_job_and_an_upload_survive_power_cuts_at_any_moment() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let mut machine = site.switch_on();
    let tokens = json!({"name": "ops", "role": "operator"});
    let token = site.client.post("/v1/appliance/tokens", &tokens).unwrap()["id"].clone();
    let small = site.file("small.jsonl");
    examples(&small, 10);
    let kept = site.client.bring(&small, "fine-tune").unwrap();
    site.wait_until_good(&kept.id);
    let job = site.run("count", json!({"env": {"STEPS": "600"}, "memory": LITTLE}));
    let training = site.train(&kept.id, STEPS);
    let file = site.file("bulk");
    bulk(&file, 200);
    let bringing = thread::spawn(bring_through_everything(site.client.clone(), file.clone()));

    for cut in 0..cuts() {
        thread::sleep(moment(cut));
        let before = site.client.get(&format!("/v1/appliance/jobs/{job}"));
        drop(machine);
        machine = site.switch_on();

        let after = site.client.get(&format!("/v1/appliance/jobs/{job}")).unwrap();
        if let Ok(before) = before {
            assert!(starts(&after) >= starts(&before), "{before}\n{after}");
            let was_over = OVER.contains(&before["state"].as_str().unwrap());
            assert!(!was_over || before["state"] == after["state"], "{before}\n{after}");
        }
        assert_ne!(after["state"], "failed", "{after}");
        let listed = site.client.get("/v1/appliance/tokens").unwrap();
        assert!(listed["data"].as_array().unwrap().iter().any(|listed| listed["id"] == token), "{listed}");
        let found = site.client.get(&format!("/v1/files/{}", kept.id)).unwrap();
        assert_eq!(found["sha256"].as_str(), kept.sha256.as_deref(), "{found}");
    }

    let brought = bringing.join().unwrap();
    assert_eq!(brought.sha256, Some(digest(&file)), "{brought:?}");
    let listed = site.client.get("/v1/files").unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2, "what was begun again is there once: {listed}");
    let ended = site.wait_within(Duration::from_secs(900), &job, OVER);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", site.log(&job));
    let said = site.log(&job);
    assert!(said.contains("counted 600") && said.contains("goes on from"), "{said}");
    site.trained_as_if_nothing_had_been(&training, &kept.id);
    let audit = site.client.get("/v1/appliance/audit?limit=1000").unwrap();
    assert!(!audit["data"].as_array().unwrap().is_empty(), "{audit}");
    site.still_works();
    drop(machine);
}

/// Goes on with an upload whenever the machine went away under it, until it is complete.
fn bring_through_everything(client: Api, file: PathBuf) -> impl FnOnce() -> Uploaded {
    move || {
        loop {
            match client.bring(&file, "user_data") {
                Ok(brought) => return brought,
                Err(UploadError::Client(error)) if error.is_passing() => thread::sleep(Duration::from_secs(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn starts(job: &Value) -> u64 {
    job["starts"].as_u64().unwrap()
}

fn digest(file: &Path) -> String {
    gap_format::Digest::of(&std::fs::read(file).unwrap()).to_hex()
}
