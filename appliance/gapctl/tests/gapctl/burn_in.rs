//! A machine with GPUs is burnt in on all of them.

use super::{Person, appliance::Appliance, said};
use axum::{
    Json, Router,
    extract::Path,
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A machine with two GPUs; the orders for training that it got are kept.
fn machine(orders: Arc<Mutex<Vec<Value>>>) -> Router {
    let tune = move |Json(order): Json<Value>| async move {
        let mut orders = orders.lock().unwrap();
        orders.push(order);
        Json(json!({"id": format!("ftjob-{}", orders.len())}))
    };
    let upload = || async { Json(json!({"id": "u", "status": "completed", "file": {"id": "file-1", "bytes": 1}})) };
    let file =
        json!({"id": "file-1", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "x", "status": "processed"});
    let losses = "{\"train_loss\": 1.5}\n".repeat(10);
    let part = json!({"bytes": 1, "passes": 3, "seconds": 0.5, "faults": []});
    Router::new()
        .route("/v1/system", get(|| async { Json(json!({"gpus": {"gpus": [{"model": "H200"}, {"model": "H200"}]}})) }))
        .route("/v1/appliance/storage", get(|| async { Json(json!({"gpus": ["gpu-a", "gpu-b"]})) }))
        .route("/v1/appliance/declared", get(|| async { Json(json!({"jobs": [{"kind": "train", "model": "base"}]})) }))
        .route("/v1/appliance/selftest", post(|| async { Json(job("job-1".to_owned())) }))
        .route("/v1/uploads", post(upload))
        .route("/v1/uploads/u/parts", post(|| async { Json(json!({"id": "part-1"})) }))
        .route("/v1/uploads/u/complete", post(upload))
        .route("/v1/files/file-1", get(|| async { Json(file) }).delete(|| async { Json(json!({"deleted": true})) }))
        .route("/v1/fine_tuning/jobs", post(tune))
        .route("/v1/appliance/jobs/{id}", get(|Path(id): Path<String>| async { Json(job(id)) }))
        .route("/v1/appliance/jobs/{id}/metrics", get(|| async { losses }))
        .route("/v1/appliance/jobs/{id}/outputs", delete(|| async { Json(json!({"deleted": true})) }))
        .route(
            "/v1/appliance/jobs/{id}/outputs/self-test.json",
            get(|| async move { Json(json!({"memory": part, "disk": part})) }),
        )
}

fn job(id: String) -> Value {
    let gpus = match id.as_str() {
        "ftjob-1" => json!(["gpu-a"]),
        "ftjob-2" => json!(["gpu-b"]),
        _ => json!([]),
    };
    json!({"id": id, "state": "succeeded", "reason": null, "gpus": gpus})
}

#[test]
fn every_gpu_trains() {
    let orders = Arc::default();
    let appliance = Appliance::answering(machine(Arc::clone(&orders)));
    let person = Person::of(&appliance);
    let output = person.does(&["selftest"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let orders = orders.lock().unwrap();
    assert_eq!(orders.len(), 2);
    assert!(orders.iter().all(|order| order["appliance"]["gpus"] == 1), "{orders:?}");
    let lines = said(&output);
    for gpu in ["gpu-a", "gpu-b"] {
        let row = lines.lines().find(|line| line.starts_with("training") && line.contains(gpu)).unwrap();
        assert!(row.contains("good") && row.contains("10 of 10 steps, loss 1.500"), "{lines}");
    }
    assert!(said(&person.does(&["system"])).contains("H200, H200"));
}
