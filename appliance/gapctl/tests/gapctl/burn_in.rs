//! A machine with GPUs is burnt in on all of them, and what does not compute is told.

use super::{Person, appliance::Appliance, said};
use axum::{
    Json, Router,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    process::Output,
    sync::{Arc, Mutex},
};

/// A machine with two GPUs.
#[derive(Clone)]
struct Machine {
    /// What `/v1/system` says of them.
    gpus: Value,
    /// What jobs are given.
    slots: Vec<&'static str>,
    /// The GPU of each training job, in order.
    places: Vec<&'static str>,
    /// How the test of memory and disk ends.
    tested: &'static str,
    /// What training says that it computed on.
    device: &'static str,
    /// The order for training that is refused, from 1.
    refused: Option<usize>,
    /// Jobs that were cancelled.
    cancelled: Arc<Mutex<Vec<String>>>,
    /// The orders for training that came.
    orders: Arc<Mutex<Vec<Value>>>,
    /// Looks at jobs that are not answered, as by an agent that is being started again.
    silent_looks: Arc<Mutex<usize>>,
}

fn gpu(uuid: &str, verdict: &str) -> Value {
    let reasons = if verdict == "healthy" { json!([]) } else { json!(["it fell off the bus"]) };
    json!({"address": "0000:3b:00.0", "uuid": uuid, "model": "H200", "slices": [],
           "health": {"verdict": verdict, "reasons": reasons}})
}

impl Machine {
    fn sound() -> Self {
        Self {
            gpus: json!({"mode": "gpu", "gpus": [gpu("gpu-a", "healthy"), gpu("gpu-b", "healthy")], "problems": []}),
            slots: vec!["gpu-a", "gpu-b"],
            places: vec!["gpu-a", "gpu-b"],
            tested: "succeeded",
            device: "NVIDIA H200",
            refused: None,
            cancelled: Arc::default(),
            orders: Arc::default(),
            silent_looks: Arc::default(),
        }
    }

    fn job(&self, id: &str) -> Response {
        let mut silent = self.silent_looks.lock().unwrap();
        if *silent > 0 {
            *silent -= 1;
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "not yet").into_response();
        }
        let state = if id.starts_with("ftjob-") { "succeeded" } else { self.tested };
        // One that has ended has no GPUs any more.
        Json(json!({"id": id, "state": state, "reason": null, "gpus": []})).into_response()
    }

    /// What happened to a job, the newest first, one event a page.
    fn events(&self, id: &str, after: Option<&str>) -> Json<Value> {
        let number = id.strip_prefix("ftjob-").and_then(|number| number.parse::<usize>().ok());
        let place = number.and_then(|number| self.places.get(number - 1)).unwrap();
        let event = |id: &str, data: Value| json!({"id": id, "message": "x", "data": data});
        Json(match after {
            None => json!({"data": [event("event-2", json!({"topic": "gap.step", "data": {}}))], "has_more": true}),
            Some(after) => {
                assert_eq!(after, "event-2");
                json!({"data": [event("event-1", json!({"gpus": [place]}))], "has_more": false})
            }
        })
    }

    fn router(&self) -> Router {
        let orders = Arc::clone(&self.orders);
        let refused = self.refused;
        let tune = move |Json(order): Json<Value>| async move {
            let mut orders = orders.lock().unwrap();
            orders.push(order);
            if Some(orders.len()) == refused {
                return StatusCode::BAD_REQUEST.into_response();
            }
            Json(json!({"id": format!("ftjob-{}", orders.len())})).into_response()
        };
        let cancelled = Arc::clone(&self.cancelled);
        let cancel = move |Path(id): Path<String>| async move {
            cancelled.lock().unwrap().push(id);
            Json(json!({}))
        };
        let told = self.clone();
        let events = move |Path(id): Path<String>, Query(query): Query<BTreeMap<String, String>>| async move {
            told.events(&id, query.get("after").map(String::as_str))
        };
        let upload = || async { Json(json!({"id": "u", "status": "completed", "file": {"id": "file-1", "bytes": 1}})) };
        let file = json!({
            "id": "file-1", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "x", "status": "processed",
        });
        let losses = "{\"train_loss\": 1.5}\n".repeat(10);
        let part = json!({"bytes": 1, "passes": 3, "seconds": 0.5, "faults": []});
        let (system, storage) = (json!({"gpus": self.gpus}), json!({"gpus": self.slots}));
        let lineage = json!({"engine": {"device": self.device}});
        let deleted = || async { Json(json!({"deleted": true})) };
        let machine = self.clone();
        Router::new()
            .route("/v1/system", get(|| async { Json(system) }))
            .route("/v1/appliance/storage", get(|| async { Json(storage) }))
            .route(
                "/v1/appliance/declared",
                get(|| async { Json(json!({"jobs": [{"kind": "train", "model": "base"}]})) }),
            )
            .route(
                "/v1/appliance/selftest",
                post(|| async { Json(json!({"id": "job-1", "state": "queued", "gpus": []})) }),
            )
            .route("/v1/uploads", post(upload))
            .route("/v1/uploads/u/parts", post(|| async { Json(json!({"id": "part-1"})) }))
            .route("/v1/uploads/u/complete", post(upload))
            .route("/v1/files/file-1", get(|| async { Json(file) }).delete(deleted))
            .route("/v1/fine_tuning/jobs", post(tune))
            .route("/v1/appliance/jobs/{id}", get(|Path(id): Path<String>| async move { machine.job(&id) }))
            .route("/v1/appliance/jobs/{id}/cancel", post(cancel))
            .route("/v1/appliance/jobs/{id}/events", get(events))
            .route("/v1/appliance/jobs/{id}/metrics", get(|| async { losses }))
            .route("/v1/appliance/jobs/{id}/outputs", delete(deleted))
            .route("/v1/appliance/jobs/{id}/outputs/lineage.json", get(|| async { Json(lineage) }))
            .route(
                "/v1/appliance/jobs/{id}/outputs/self-test.json",
                get(|| async move { Json(json!({"memory": part, "disk": part})) }),
            )
    }

    fn burnt_in(&self) -> (Person, Output) {
        let person = Person::of(&Appliance::answering(self.router()));
        let output = person.does(&["selftest"]);
        (person, output)
    }

    /// The exit code, and the row of this part and device.
    fn told(&self, part: &str, on: &str) -> (Option<i32>, String) {
        let output = self.burnt_in().1;
        let lines = said(&output);
        let row = lines.lines().find(|line| line.starts_with(part) && line.contains(on));
        (output.status.code(), row.unwrap_or_else(|| panic!("{lines}")).to_owned())
    }
}

#[test]
fn every_gpu_trains_and_none_before_all_may() {
    let machine = Machine::sound();
    let (person, output) = machine.burnt_in();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let orders = machine.orders.lock().unwrap();
    assert_eq!(orders.len(), 2);
    assert!(orders.iter().all(|order| order["appliance"]["gpus"] == 1), "{orders:?}");
    assert!(orders.iter().all(|order| order["appliance"]["needs"] == json!(["job-1"])), "{orders:?}");
    let lines = said(&output);
    for gpu in ["gpu-a", "gpu-b"] {
        let row = lines.lines().find(|line| line.starts_with("training") && line.contains(gpu)).unwrap();
        assert!(row.contains("good") && row.contains("10 of 10 steps, loss 1.500"), "{lines}");
    }
    assert!(said(&person.does(&["system"])).contains("H200, H200"));
}

#[test]
fn a_gpu_that_failed_before_is_no_slot_and_makes_the_report_bad() {
    let gpus = json!({"mode": "gpu", "gpus": [gpu("gpu-a", "healthy"), gpu("gpu-b", "failed")], "problems": []});
    let machine = Machine { gpus, slots: vec!["gpu-a"], ..Machine::sound() };
    let (code, row) = machine.told("gpu", "gpu-b");
    assert!(code == Some(4) && row.contains("BAD") && row.contains("fell off the bus"), "{row}");

    let all = json!({"mode": "cpu", "gpus": [gpu("gpu-a", "failed")], "problems": ["the module nvidia is not loaded"]});
    let machine = Machine { gpus: all, slots: Vec::new(), ..Machine::sound() };
    let (code, row) = machine.told("training", "processor");
    assert!(code == Some(4) && row.contains("good"), "{row}");
    assert_eq!(machine.orders.lock().unwrap()[0]["appliance"]["gpus"], 0);
    assert!(machine.told("gpu", "module nvidia").1.contains("BAD"));
}

#[test]
fn a_gpu_that_got_no_job_or_did_not_compute_makes_the_report_bad() {
    let twice = Machine { places: vec!["gpu-a", "gpu-a"], ..Machine::sound() };
    let (code, row) = twice.told("training", "gpu-b");
    assert!(code == Some(4) && row.contains("BAD") && row.contains("no job was placed"), "{row}");

    let idle = Machine { device: "cpu", ..Machine::sound() };
    let (code, row) = idle.told("training", "gpu-a");
    assert!(code == Some(4) && row.contains("BAD") && row.contains("computed on the processor"), "{row}");
}

#[test]
fn what_waits_for_a_test_that_fails_is_started_anew() {
    let places = vec!["", "", "gpu-a", "gpu-b"];
    let machine = Machine { tested: "failed", places, ..Machine::sound() };
    let (code, row) = machine.told("training", "gpu-b");
    assert!(code == Some(0) && row.contains("good"), "the report of that test decides, and says good: {row}");
    let orders = machine.orders.lock().unwrap();
    assert_eq!((orders.len(), &orders[3]["appliance"]["needs"]), (4, &json!([])), "{orders:?}");
}

#[test]
fn jobs_that_were_queued_before_one_was_refused_are_cancelled() {
    let machine = Machine { refused: Some(2), places: vec!["", "", "gpu-a", "gpu-b"], ..Machine::sound() };
    let (code, row) = machine.told("training", "gpu-b");
    assert!(code == Some(0) && row.contains("good"), "{row}");
    assert_eq!(*machine.cancelled.lock().unwrap(), ["ftjob-1"]);
}

#[test]
fn an_appliance_that_does_not_answer_for_a_moment_is_asked_again() {
    let machine = Machine::sound();
    *machine.silent_looks.lock().unwrap() = 2;
    let (_, output) = machine.burnt_in();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("it is asked again"), "{}", said(&output));
}
