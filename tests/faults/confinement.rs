//! Jobs that try to get out of their containers.

use crate::{
    MACHINE,
    machine::{OVER, Site},
};
use gapctl::client::ClientError;
use serde_json::json;

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_job_sees_itself_and_finds_every_way_out_shut() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let machine = site.switch_on();

    let hello = site.run("hello", json!({}));
    let ended = site.wait(&hello, OVER);
    let said = site.log(&hello);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{said}");
    for line in
        ["hello", "lo", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let processes =
        said.lines().skip_while(|line| !line.starts_with("PID")).skip(1).take_while(|line| !line.starts_with("CapInh"));
    assert_eq!(processes.count(), 3, "the first, the shell and ps: {said}");
    let outputs = site.client.get(&format!("/v1/appliance/jobs/{hello}/outputs")).unwrap();
    assert_eq!(outputs["data"][0]["path"], "result", "{outputs}");

    let escape = site.run("escape", json!({}));
    let ended = site.wait(&escape, OVER);
    let said = site.log(&escape);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{said}");
    assert!(said.ends_with("done\n") && !said.contains("OPEN"), "{said}");
    site.still_works();
    drop(machine);
}

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn what_is_not_declared_or_names_a_network_is_not_taken() {
    let _machine = MACHINE.lock();
    let site = Site::new(2048);
    let machine = site.switch_on();
    for body in [
        json!({"kind": "run", "job": "none"}),
        json!({"kind": "run", "job": "hello", "env": {"FROM": "https://example.org/x"}}),
        json!({"kind": "run", "job": "hello", "memory": 1_u64 << 50}),
        json!({"kind": "run", "job": "hello", "gpus": 1}),
        json!({"kind": "run", "job": "hello", "needs": ["job-0"]}),
        json!({"kind": "serve", "model": "none"}),
    ] {
        let refused = site.client.post("/v1/appliance/jobs", &body).unwrap_err();
        assert!(matches!(refused, ClientError::Refused { status: 400..=499, .. }), "{body}: {refused:?}");
    }
    assert_eq!(site.client.get("/v1/appliance/jobs").unwrap()["data"], json!([]));
    drop(machine);
}
