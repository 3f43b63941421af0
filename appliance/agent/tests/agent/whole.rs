//! Models that were trained whole: each takes the place of its base.

use crate::{
    appliance::Appliance,
    machine::{Answer, Machine, TOKEN},
    programs::{LESSONS, Real},
};
use gap_jobs::End;
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Longest that a job may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Asks until this holds for the answer.
async fn until(machine: &Machine, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + LIMIT;
    loop {
        let answer = machine.get(path, Some(TOKEN)).await;
        if holds(&answer.body) {
            return answer.body;
        }
        assert!(Instant::now() < end, "{path}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A file that was found good.
async fn file(machine: &Machine) -> String {
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{LESSONS}\r\n--b--\r\n"
    );
    let sent = machine.send_body("/v1/files", TOKEN, "multipart/form-data; boundary=b", body.as_bytes()).await;
    let id = sent.body["id"].as_str().unwrap_or_else(|| panic!("{sent:?}")).to_owned();
    until(machine, &format!("/v1/files/{id}"), |file| file["status"] == "processed").await;
    id
}

/// Trains for a step, with an adapter or whole; returns the new model.
async fn trained(machine: &Machine, model: &str, file: &str, is_whole: bool) -> String {
    let mut parameters = json!({"max_steps": 1});
    if is_whole {
        parameters["lora"] = Value::Null;
    }
    let request = json!({"model": model, "training_file": file, "appliance": {"parameters": parameters}});
    let created = machine.post("/v1/fine_tuning/jobs", TOKEN, &request).await;
    let id = created.body["id"].as_str().unwrap_or_else(|| panic!("{created:?}"));
    let is_over = |job: &Value| job["status"] == "succeeded" || job["status"] == "failed";
    let job = until(machine, &format!("/v1/fine_tuning/jobs/{id}"), is_over).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job["fine_tuned_model"].as_str().unwrap().to_owned()
}

/// Serves a model, asks it something, and ends its server.
async fn answer(machine: &Machine, model: &str) -> Answer {
    let server = machine.post("/v1/appliance/jobs", TOKEN, &json!({"kind": "serve", "model": model})).await;
    let id = server.body["id"].as_str().unwrap_or_else(|| panic!("{server:?}"));
    let path = format!("/v1/appliance/jobs/{id}");
    let served = until(machine, &path, |job| job["is_ready"] == true || job["starts"] == 2).await;
    assert_eq!(served["is_ready"], true, "{served}");
    let user = json!([{"role": "user", "content": "Who looks after this appliance?"}]);
    let chat = json!({"model": model, "messages": user, "max_tokens": 2});
    let answer = machine.post("/v1/chat/completions", TOKEN, &chat).await;
    machine.post(&format!("{path}/cancel"), TOKEN, &json!({})).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_was_trained_whole_is_served_measured_and_trained_further() {
    let real = Real::start();
    let machine = &real.machine;
    let file = file(machine).await;
    let whole = trained(machine, "tiny", &file, true).await;
    let further = trained(machine, &whole, &file, true).await;
    let adapted = trained(machine, &further, &file, false).await;
    for model in [&whole, &adapted] {
        let answer = answer(machine, model).await;
        assert_eq!((answer.status, &answer.body["model"]), (200, &json!(model)), "{answer:?}");
    }
    for model in [&whole, &adapted] {
        let request = json!({"kind": "eval", "job": "measure", "model": model, "file": "dataset:site"});
        let created = machine.post("/v1/appliance/jobs", TOKEN, &request).await;
        let id = created.body["id"].as_str().unwrap_or_else(|| panic!("{created:?}"));
        let is_over = |job: &Value| job["state"] == "succeeded" || job["state"] == "failed";
        let job = until(machine, &format!("/v1/appliance/jobs/{id}"), is_over).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let request = json!({"name": "support", "model": model, "evaluation": id});
        let promoted = machine.post("/v1/appliance/promotions", TOKEN, &request).await;
        assert_eq!((promoted.status, &promoted.body["findings"][0]["is_met"]), (200, &json!(true)), "{promoted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_model_stays_while_an_adapter_on_it_is_needed() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let trained = async |model: &str, leaves: &str| {
        let request = json!({"model": model, "training_file": file});
        let created = appliance.post("/v1/fine_tuning/jobs", request).await.body;
        let id = created["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/fine_tuning/jobs/{id}");
        appliance.wait(&path, "/status", json!("running")).await;
        fs::create_dir_all(appliance.work.storage.output(&id).join(leaves)).unwrap();
        appliance.end(&id, End::Exit(0)).await;
        let done = appliance.wait(&path, "/status", json!("succeeded")).await;
        (id, done["fine_tuned_model"].as_str().unwrap().to_owned())
    };
    let (job, whole) = trained("tiny", "model").await;
    let (_, adapted) = trained(&whole, "adapter").await;
    let words = async |model: &str| {
        let server = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": model})).await.body;
        appliance.post(&format!("/v1/appliance/jobs/{}/cancel", server["id"].as_str().unwrap()), json!({})).await;
        server["command"].to_string()
    };
    assert!(words(&whole).await.contains(&format!("{whole}=/run/job/model")));
    assert!(!words(&whole).await.contains("--adapter"));
    assert!(words(&adapted).await.contains(&format!("{adapted}=tiny:/run/job/adapter")));

    let promote = async |model: &str| {
        let request = json!({"name": "support", "model": model, "override_reason": "x"});
        assert_eq!(appliance.post("/v1/appliance/promotions", request).await.status, 200);
    };
    let delete = async || {
        let path = format!("/v1/appliance/jobs/{job}/outputs");
        // The servers of before may still be ending.
        let end = Instant::now() + LIMIT;
        loop {
            let answer = appliance.machine.ask("DELETE", &path, Some(TOKEN)).await;
            let message = answer.body["error"]["message"].as_str().unwrap_or_default().to_owned();
            if !message.contains("works on its model") {
                return (answer.status, message);
            }
            assert!(Instant::now() < end, "{message}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    promote(&adapted).await;
    let (status, message) = delete().await;
    assert!(status == 409 && message.contains("under the name `support`"), "{status} {message}");
    promote("tiny").await;
    assert_eq!(delete().await.0, 200);
    let refused = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": adapted})).await;
    assert_eq!(refused.status, 404, "its base is gone: {refused:?}");
}
