//! The API before a served model, for `tests/bench.py` to measure what it adds.

use crate::{appliance::Appliance, machine::TOKEN};
use rustix::process::getpid;
use serde_json::json;
use std::{fs, io};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until its input ends"]
async fn a_served_model_is_reached_through_the_api() {
    let appliance = Appliance::start();
    let job = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": "tiny"})).await;
    let socket = appliance.socket(job.body["id"].as_str().unwrap()).await;
    let certificate = socket.with_extension("der");
    fs::write(&certificate, appliance.machine.system.identity.certificate()).unwrap();
    let place = json!({
        "pid": getpid().as_raw_nonzero().get(), "address": appliance.machine.address, "token": TOKEN,
        "certificate": certificate, "socket": socket,
    });
    println!("\n{place}");
    let mut line = String::new();
    // Each line means that a server listens there by now.
    while tokio::task::block_in_place(|| io::stdin().read_line(&mut line)).unwrap() > 0 {
        appliance.probe().await;
        println!("\n{}", json!({"ready": appliance.ready()}));
    }
}
