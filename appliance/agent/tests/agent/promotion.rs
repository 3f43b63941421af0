//! Stable names: only for models that were measured on the release's own data to be good enough, or by an admin's word.

use crate::{
    appliance::{Appliance, EXAMPLES},
    machine::{Answer, TOKEN},
};
use gap_format::Digest;
use gap_jobs::End;
use serde_json::{Value, json};
use std::fs;

const PROMOTIONS: &str = "/v1/appliance/promotions";

/// What `gap-train eval` leaves behind, as far as it counts.
fn report(data: &[u8], value: f64) -> Value {
    let measured = |candidate: &str, value: f64| json!({"candidate": candidate, "metric": "exact_match", "value": value, "interval": [0.0, 1.0], "examples": 2});
    json!({
        "version": 1, "base": "d", "data": "test.jsonl", "data_sha256": Digest::of(data).to_hex(), "seed": 42,
        "measured": [measured("base", 0.1), measured("new", value)], "compared": [], "ratings": null, "examples": [],
    })
}

/// Trains a model to its end; returns the model and the job.
async fn trained(appliance: &Appliance) -> (String, String) {
    let file = appliance.good_file().await;
    let request = json!({"model": "tiny", "training_file": file, "suffix": "mine"});
    let created = appliance.post("/v1/fine_tuning/jobs", request).await.body;
    let id = created["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/fine_tuning/jobs/{id}");
    appliance.wait(&path, "/status", json!("running")).await;
    let output = appliance.work.storage.output(&id);
    fs::create_dir_all(output.join("adapter")).unwrap();
    fs::write(output.join("adapter/adapter_model.safetensors"), "weights").unwrap();
    fs::write(output.join("lineage.json"), r#"{"version":1,"steps":7}"#).unwrap();
    appliance.end(&id, End::Exit(0)).await;
    let done = appliance.wait(&path, "/status", json!("succeeded")).await;
    (done["fine_tuned_model"].as_str().unwrap().to_owned(), id)
}

/// Runs a job that measures and leaves this behind; returns its name.
async fn measured(appliance: &Appliance, more: Value, report: &Value) -> String {
    let mut request = json!({"kind": "eval", "job": "measure"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let created = appliance.post("/v1/appliance/jobs", request).await;
    let id = created.body["id"].as_str().unwrap_or_else(|| panic!("{created:?}")).to_owned();
    let path = format!("/v1/appliance/jobs/{id}");
    appliance.wait(&path, "/state", json!("running")).await;
    let output = appliance.work.storage.output(&id);
    fs::create_dir_all(&output).unwrap();
    fs::write(output.join("report.json"), report.to_string()).unwrap();
    appliance.end(&id, End::Exit(0)).await;
    appliance.wait(&path, "/state", json!("succeeded")).await;
    id
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.body["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_meets_what_the_release_demands_answers_under_its_stable_name() {
    let appliance = Appliance::start();
    let (model, job) = trained(&appliance).await;
    let evaluation = measured(&appliance, json!({"model": model}), &report(EXAMPLES.as_bytes(), 0.95)).await;
    let request = json!({"name": "support", "model": model, "evaluation": evaluation});
    let promoted = appliance.post(PROMOTIONS, request).await;
    assert_eq!(promoted.status, 200, "{promoted:?}");
    let body = &promoted.body;
    assert_eq!(
        body["findings"],
        json!([{"metric": "exact_match", "comparison": ">=", "bound": 0.9, "value": 0.95, "is_met": true}])
    );
    assert_eq!(
        (&body["release"]["version"], &body["gpus"], &body["driver"]),
        (&json!("1.0"), &json!(["NVIDIA H200"]), &json!("550.163.01"))
    );
    let lineage: Value =
        serde_json::from_slice(&fs::read(appliance.work.storage.output(&job).join("lineage.json")).unwrap()).unwrap();
    assert_eq!((&lineage["steps"], &lineage["deployments"][0]["name"]), (&json!(7), &json!("support")));
    assert_eq!(lineage["deployments"][0]["release"]["digest"], Digest::of(b"index").to_hex());

    let server = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": "support"})).await.body;
    assert_eq!(server["name"], json!(model), "it is the model that is served");
    let server = server["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/appliance/jobs/{server}"), "/state", json!("running")).await;
    appliance.answer(server).await;
    let chat = json!({"model": "support", "messages": [{"role": "user", "content": "2+2?"}], "seed": 7});
    let answer = appliance.post("/v1/chat/completions", chat).await;
    assert_eq!((answer.status, &answer.body["model"], &answer.body["seed"]), (200, &json!(model), &json!(7)));
    let stable = appliance.get("/v1/models/support").await.body;
    assert_eq!(
        (&stable["parent"], &stable["is_served"], &stable["owned_by"]),
        (&json!(model), &json!(true), &body["id"])
    );
    assert_eq!(appliance.get(&format!("{PROMOTIONS}/{}", body["id"].as_str().unwrap())).await.body, *body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_promoted_by_an_evaluation_that_does_not_count() {
    let appliance = Appliance::start();
    let (model, job) = trained(&appliance).await;
    let file = appliance.good_file().await;
    let good = report(EXAMPLES.as_bytes(), 0.95);
    let mut newer = good.clone();
    newer["version"] = json!(2);
    let bad = [
        (
            measured(&appliance, json!({"model": model}), &report(EXAMPLES.as_bytes(), 0.5)).await,
            "is 0.5, and must be >= 0.9",
        ),
        (measured(&appliance, json!({"model": "tiny"}), &good).await, "did not measure the model"),
        (
            measured(&appliance, json!({"model": model}), &report(b"easier", 0.95)).await,
            "did not measure on test.jsonl",
        ),
        (measured(&appliance, json!({"model": model, "env": {"X": "1"}}), &good).await, "variables"),
        (measured(&appliance, json!({"model": model, "kind": "run"}), &good).await, "of the kind `run`"),
        (measured(&appliance, json!({"model": model}), &newer).await, "version 2"),
        (measured(&appliance, json!({"model": model}), &json!({})).await, "report.json"),
        (job, "of the kind `train`"),
    ];
    for (evaluation, part) in bad {
        let request = json!({"name": "support", "model": model, "evaluation": evaluation});
        let (status, message) = refusal(&appliance.post(PROMOTIONS, request).await);
        assert!(status == 409 && message.contains(part), "{part}: {status} {message}");
    }
    for (request, status, part) in [
        (json!({"name": "support", "model": model}), 400, "name the job"),
        (json!({"name": "support", "model": "none"}), 404, "no model"),
        (json!({"name": "tiny", "model": model, "override_reason": "x"}), 409, "has this name"),
        (json!({"name": "ft:tiny:x:1", "model": model, "override_reason": "x"}), 400, "stable name"),
        (json!({"name": "support", "model": model, "override_reason": " "}), 400, "a reason"),
        (json!({"name": "support", "model": model, "evaluation": "job-000000000000000000000000"}), 404, "no job"),
        (json!({"name": "support", "model": model, "evaluation": file}), 404, "no job"),
    ] {
        let refused = refusal(&appliance.post(PROMOTIONS, request).await);
        assert!(refused.0 == status && refused.1.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(appliance.get(PROMOTIONS).await.body["data"], json!([]));
    assert_eq!(appliance.get("/v1/models/support").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_promoted_or_worked_on_is_not_deleted() {
    let appliance = Appliance::start();
    let (model, job) = trained(&appliance).await;
    let delete = async || {
        let path = format!("/v1/appliance/jobs/{job}/outputs");
        let answer = appliance.machine.ask("DELETE", &path, Some(TOKEN)).await;
        (answer.status, answer.body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let promote = async |model: &str| {
        let request = json!({"name": "support", "model": model, "override_reason": "x"});
        assert_eq!(appliance.post(PROMOTIONS, request).await.status, 200);
    };
    promote(&model).await;
    let served = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": model})).await.body;
    let served = format!("/v1/appliance/jobs/{}", served["id"].as_str().unwrap());
    appliance.post(&format!("{served}/cancel"), json!({})).await;
    appliance.wait(&served, "/state", json!("cancelled")).await;
    let left = appliance.machine.ask("DELETE", &format!("{served}/outputs"), Some(TOKEN)).await;
    assert_eq!(left.status, 200, "it bears the name of the model and has not made it: {left:?}");
    let (status, message) = delete().await;
    assert!(status == 409 && message.contains("under the name `support`: promote another"), "{status} {message}");
    promote("tiny").await;
    let server = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": model})).await.body;
    let server = server["id"].as_str().unwrap();
    let (status, message) = delete().await;
    assert!(status == 409 && message.contains(&format!("the job {server}, which is ")), "{status} {message}");
    appliance.post(&format!("/v1/appliance/jobs/{server}/cancel"), json!({})).await;
    appliance.wait(&format!("/v1/appliance/jobs/{server}"), "/state", json!("cancelled")).await;
    assert_eq!(delete().await.0, 200);
    assert_eq!(appliance.get(&format!("/v1/models/{model}")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_is_an_admins_and_stands_in_the_audit_log_with_its_reason() {
    let appliance = Appliance::start();
    let (model, _) = trained(&appliance).await;
    let made = appliance.post("/v1/appliance/tokens", json!({"name": "op", "role": "operator"})).await.body;
    let operator = made["token"].as_str().unwrap();
    let request = json!({"name": "support", "model": model, "override_reason": "the judge is broken"});
    assert_eq!(appliance.machine.post(PROMOTIONS, operator, &request).await.status, 403);
    let promoted = appliance.machine.post(PROMOTIONS, TOKEN, &request).await;
    assert_eq!((promoted.status, &promoted.body["findings"]), (200, &json!([])), "{promoted:?}");
    let again = json!({"name": "support", "model": "tiny", "override_reason": "back to the base"});
    assert_eq!(appliance.post(PROMOTIONS, again).await.status, 200);
    assert_eq!(appliance.get("/v1/models/support").await.body["parent"], "tiny");
    let history = appliance.get(&format!("{PROMOTIONS}?name=support")).await.body;
    let models: Vec<&Value> = history["data"].as_array().unwrap().iter().map(|one| &one["model"]).collect();
    assert_eq!(models, [&json!("tiny"), &json!(model)], "the last comes first");
    let audit = appliance.get("/v1/appliance/audit?limit=1000").await.body.to_string();
    assert!(
        audit.contains(&format!("override: {model} becomes support whatever the release demands: the judge is broken")),
        "{audit}"
    );
    assert!(audit.contains("refused 403"));
}
