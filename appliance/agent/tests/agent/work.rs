//! Files, jobs, models and tokens through the real server.

use crate::{
    appliance::{Appliance, EXAMPLES},
    machine::{Machine, TOKEN},
};
use gap_agent::server::Limits;
use gap_handover::site::{Rtc, Time, WrongClock};
use gap_jobs::{
    End,
    log::{Log, Stream},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_reaches_endpoints_that_recipe_and_site_agree_on_and_is_refused_otherwise() {
    let appliance = Appliance::start();
    let create = |job: &str, address: &str| {
        appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": job, "env": {"TRACKING": address}}))
    };
    let granted = create("track", "http://127.0.0.1:5000/api").await;
    assert_eq!(granted.status, 200, "{granted:?}");
    for (job, address, word) in [
        ("stray", "none", "does not name"),
        ("track", "http://127.0.0.1:5001/", "no network"),
        ("track", "http://192.0.2.20:5000/", "no network"),
        ("measure", "http://127.0.0.1:5000/api", "no network"),
    ] {
        let refused = create(job, address).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body["error"]["message"].as_str().unwrap().contains(word), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_opened_by_an_admin_for_a_while_and_recorded() {
    let appliance = Appliance::start();
    let create = |more: Value| {
        let mut body = json!({"image": "train", "command": ["/bin/measure"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        appliance.post("/v1/appliance/debug", body)
    };
    for (more, param) in [
        (json!({"time_limit_seconds": 3601}), "time_limit_seconds"),
        (json!({"command": []}), "command"),
        (json!({"command": ["x", ""]}), "command"),
        (json!({"term": "a b"}), "term"),
        (json!({"memory": 1}), "memory"),
        (json!({"image": "none"}), "image"),
        (json!({"image": "tiny"}), "image"),
    ] {
        let refused = create(more.clone()).await;
        assert_eq!((refused.status, &refused.body["error"]["param"]), (400, &json!(param)), "{more}: {refused:?}");
    }
    let job = create(json!({"time_limit_seconds": 60})).await;
    assert_eq!((job.status, &job.body["time_limit_seconds"]), (200, &json!(60)), "{job:?}");
    let id = job.body["id"].as_str().unwrap();
    let list = appliance.post("/v1/appliance/debug", json!(["train"])).await;
    assert_eq!(list.status, 400, "a list is no object, though its parts come in the order of the fields: {list:?}");
    let terminal = appliance.get(&format!("/v1/appliance/jobs/{id}/terminal")).await;
    assert_eq!((terminal.status, &terminal.body["error"]["param"]), (400, &json!("Upgrade")), "{terminal:?}");
    let audit = appliance.get("/v1/appliance/audit").await.body.to_string();
    assert!(audit.contains(&format!("terminal {id} in the image train for 60 s")), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_from_before_its_job_starts_until_it_ends_or_so_many_lines_came() {
    let appliance = Appliance::start();
    let job = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await.body;
    let id = job["id"].as_str().unwrap();
    let path = format!("/v1/appliance/jobs/{id}/log?after=0&follow=true");
    let mut log = Log::open(&appliance.work.storage.log(id)).unwrap();
    let print = async {
        for text in ["one", "two", "three"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
            log.append(Stream::Out, text.as_bytes(), 7).unwrap();
            appliance.work.stirred.of(&id.to_owned().try_into().unwrap()).notify_waiters();
        }
    };
    let limited = format!("{path}&limit=2");
    let (two, ()) = tokio::join!(appliance.get(&limited), print);
    assert_eq!(two.text.matches("\"text\":").count(), 2, "the job runs, and no more than two lines come: {two:?}");
    let (all, ()) = tokio::join!(appliance.get(&path), appliance.end(id, End::Exit(0)));
    assert!(all.text.contains("\"three\"") && all.head.contains("application/jsonl"), "{all:?}");

    let create = async |needs: &[&str]| {
        let created =
            appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure", "needs": needs})).await;
        created.body["id"].as_str().unwrap().to_owned()
    };
    let first = create(&[]).await;
    let waits = create(&[&first]).await;
    let path = format!("/v1/appliance/jobs/{waits}/log?after=0&follow=true");
    let go_on = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        appliance.end(&first, End::Exit(0)).await;
        Log::open(&appliance.work.storage.log(&waits)).unwrap().append(Stream::Out, b"at last", 7).unwrap();
        appliance.end(&waits, End::Exit(0)).await;
    };
    let (followed, ()) = tokio::join!(appliance.get(&path), go_on);
    assert!(followed.text.contains("at last"), "who follows a job that waits sees what it prints: {followed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_test_runs_the_agents_own_program_in_its_own_image() {
    let appliance = Appliance::start();
    let job = appliance.post("/v1/appliance/selftest", json!({"memory": 1 << 20, "disk": 5})).await;
    assert_eq!((job.status, &job.body["image"]), (200, &json!("train")), "{job:?}");
    assert_eq!(job.body["command"], json!(["/usr/bin/gapd", "self-test", "1048576", "5", "/run/job/output"]));
    let refused = appliance.post("/v1/appliance/selftest", json!({"memory": 1_u64 << 50})).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_wrong_clock_no_job_is_taken_where_the_site_wants_that() {
    let time = |wrong_clock| Time { rtc: Rtc::Untrusted, servers: Vec::new(), wrong_clock };
    for (policy, status) in [(WrongClock::RefuseJobs, 503), (WrongClock::Wait, 200), (WrongClock::Continue, 200)] {
        let appliance = Appliance::start_with(time(policy), false);
        let answer = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
        assert_eq!(answer.status, status, "{policy:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_becomes_a_model_and_the_model_is_talked_to() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let request = json!({
        "model": "tiny",
        "training_file": file,
        "suffix": "mine",
        "hyperparameters": {"n_epochs": 2},
        "appliance": {"parameters": {"max_length": 32}},
    });
    let created = appliance.post("/v1/fine_tuning/jobs", request).await;
    assert_eq!(created.status, 200, "{created:?}");
    assert_eq!((&created.body["object"], &created.body["model"]), (&json!("fine_tuning.job"), &json!("tiny")));
    assert_eq!(created.body["appliance"]["parameters"]["lora"]["r"], 4);
    let id = created.body["id"].as_str().unwrap();
    let path = format!("/v1/fine_tuning/jobs/{id}");
    appliance.wait(&path, "/status", json!("running")).await;

    let output = appliance.work.storage.output(id);
    for directory in ["adapter", "checkpoints/step-00000002"] {
        fs::create_dir_all(output.join(directory)).unwrap();
    }
    fs::write(output.join("adapter/adapter_model.safetensors"), "weights").unwrap();
    let row = json!({"step": 2, "epoch": 1.0, "train_loss": 0.5, "learning_rate": 0.1, "grad_norm": 1.0, "tokens": 4,
        "trained_tokens": 8, "tokens_per_second": 1.0, "memory": 1});
    fs::write(output.join("metrics.jsonl"), format!("{row}\n")).unwrap();
    let checkpoints = appliance.get(&format!("{path}/checkpoints")).await.body;
    assert_eq!(
        (&checkpoints["data"][0]["step_number"], &checkpoints["data"][0]["metrics"]["train_loss"]),
        (&json!(2), &json!(0.5))
    );
    appliance.end(id, End::Exit(0)).await;
    let done = appliance.wait(&path, "/status", json!("succeeded")).await;
    let model = done["fine_tuned_model"].as_str().unwrap();
    assert!(model.starts_with("ft:tiny:mine:"), "{model}");
    assert_eq!(done["trained_tokens"], 8);
    let events = appliance.get(&format!("{path}/events")).await.body;
    assert_eq!(events["data"][0]["message"], "succeeded", "the last comes first");
    let models = appliance.get("/v1/models").await.body;
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny", model]);
    assert_eq!(appliance.get(&format!("/v1/models/{model}")).await.body["parent"], "tiny");

    let chat = json!({"model": model, "messages": [{"role": "user", "content": "2+2?"}]});
    let early = appliance.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!((early.status, &early.body["error"]["code"]), (503, &json!("not_ready")));
    let server = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "model": model})).await;
    assert_eq!((server.status, &server.body["name"]), (200, &json!(model)), "{server:?}");
    let words: Vec<&str> = server.body["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert!(words.contains(&format!("{model}=tiny:/run/job/adapter").as_str()), "{words:?}");
    let job = server.body["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/appliance/jobs/{job}"), "/state", json!("running")).await;
    appliance.answer(job).await;
    let answer = appliance.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!((answer.status, &answer.body), (200, &chat), "the answer is the server's own");
    appliance.post(&format!("/v1/appliance/jobs/{job}/cancel"), json!({})).await;
    appliance.wait(&format!("/v1/appliance/jobs/{job}"), "/state", json!("cancelled")).await;
    assert_eq!(appliance.post("/v1/chat/completions", chat).await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_leaves_links_makes_no_model_and_leads_nobody_anywhere() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let request = json!({"model": "tiny", "training_file": file});
    let created = appliance.post("/v1/fine_tuning/jobs", request).await;
    let id = created.body["id"].as_str().unwrap();
    let path = format!("/v1/fine_tuning/jobs/{id}");
    appliance.wait(&path, "/status", json!("running")).await;
    let (output, files) = (appliance.work.storage.output(id), appliance.work.storage.root().join("files"));
    fs::create_dir_all(&output).unwrap();
    std::os::unix::fs::symlink(&files, output.join("adapter")).unwrap();
    std::os::unix::fs::symlink(&files, output.join("checkpoints")).unwrap();
    fs::create_dir(files.join("step-00000001")).unwrap();
    std::os::unix::fs::symlink(appliance.work.storage.audit(), output.join("metrics.jsonl")).unwrap();
    appliance.end(id, End::Exit(0)).await;
    let done = appliance.wait(&path, "/status", json!("succeeded")).await;

    let model = done["fine_tuned_model"].as_str().unwrap();
    let served = appliance.post("/v1/appliance/jobs", json!({"kind": "serve", "job": "chat", "model": model})).await;
    assert_eq!(served.status, 404, "{served:?}");
    assert_eq!(appliance.get(&format!("{path}/checkpoints")).await.body["data"], json!([]));
    for left in ["metrics", "outputs/metrics.jsonl", "outputs/adapter/step-00000001"] {
        assert_eq!(appliance.get(&format!("/v1/appliance/jobs/{id}/{left}")).await.status, 404, "{left}");
    }
    let outputs = appliance.get(&format!("/v1/appliance/jobs/{id}/outputs")).await.body;
    assert_eq!(outputs["data"], json!([]), "{outputs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_the_queue_and_of_nothing_that_is_not_there() {
    let early = Machine::start(Limits::default()).get("/metrics", Some(TOKEN)).await;
    assert_eq!(early.status, 200);
    assert!(early.text.contains("gapimage_jobs_ready 0") && !early.text.contains("gapimage_jobs{"), "{}", early.text);
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
    let path = format!("/v1/appliance/jobs/{}", created.body["id"].as_str().unwrap());
    appliance.wait(&path, "/state", json!("running")).await;
    let answer = appliance.get("/metrics").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    for line in [
        r#"gapimage_jobs{state="running"} 1"#,
        r#"gapimage_jobs{state="failed"} 0"#,
        r#"gapimage_release_info{name="quickstart",version="1.0",serial="3"} 1"#,
        r#"gapimage_gpus{health="degraded"} 1"#,
        "gapimage_jobs_ready 1",
    ] {
        assert!(answer.text.lines().any(|other| other == line), "{line}: {}", answer.text);
    }
    // A GPU is plugged in, and there is no library that could tell of it.
    assert!(!answer.text.contains("DCGM_"), "{}", answer.text);
    assert_eq!(appliance.machine.get("/metrics", None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_job_works_on_is_not_deleted_before_the_job_has_ended() {
    let appliance = Appliance::start();
    let [training, validation] = [appliance.good_file().await, appliance.good_file().await];
    let request = json!({"model": "tiny", "training_file": training, "validation_file": validation});
    let created = appliance.post("/v1/fine_tuning/jobs", request).await.body;
    let id = created["id"].as_str().unwrap();
    let path = format!("/v1/appliance/jobs/{id}");
    let delete = async |file: &str| appliance.machine.ask("DELETE", &format!("/v1/files/{file}"), Some(TOKEN)).await;
    appliance.post(&format!("{path}/pause"), json!({})).await;
    appliance.wait(&path, "/state", json!("paused")).await;
    for file in [&training, &validation] {
        let refused = delete(file).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (409, &json!("conflict")), "{refused:?}");
        assert!(refused.body["error"]["message"].as_str().unwrap().contains(id), "{refused:?}");
    }
    appliance.post(&format!("{path}/cancel"), json!({})).await;
    for file in [&training, &validation] {
        assert_eq!(delete(file).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_job_says_what_it_waits_for() {
    let appliance = Appliance::start();
    let all = json!({"kind": "run", "job": "measure", "memory": appliance.work.machine.memory});
    let first = appliance.post("/v1/appliance/jobs", all.clone()).await.body;
    let first = format!("/v1/appliance/jobs/{}", first["id"].as_str().unwrap());
    assert_eq!(appliance.wait(&first, "/state", json!("running")).await["waits_for"], Value::Null);
    let second = appliance.post("/v1/appliance/jobs", all).await.body;
    let path = format!("/v1/appliance/jobs/{}", second["id"].as_str().unwrap());
    for job in [&second, &appliance.get(&path).await.body, &appliance.get("/v1/appliance/jobs").await.body["data"][0]] {
        assert_eq!((&job["id"], &job["state"]), (&second["id"], &json!("queued")));
        assert!(job["waits_for"].as_str().unwrap().contains("MiB of memory; 0 MiB free"), "{job}");
    }
    appliance.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(appliance.get(&path).await.body["waits_for"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_trains_on_what_was_not_found_good() {
    let appliance = Appliance::start();
    let bad = appliance.upload("no json\n").await.body;
    let id = bad["id"].as_str().unwrap();
    let checked = appliance.wait(&format!("/v1/files/{id}"), "/status", json!("error")).await;
    assert!(!checked["status_details"].as_str().unwrap().is_empty());
    for (file, part) in
        [(id, "not found good"), ("file-000000000000000000000000", "upload it first"), ("dataset:x", "no data set")]
    {
        let answer = appliance.post("/v1/fine_tuning/jobs", json!({"model": "tiny", "training_file": file})).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!("training_file")), "{answer:?}");
        assert!(answer.body["error"]["message"].as_str().unwrap().contains(part), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_parts_are_not_all_there_is_refused_at_once() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let tune = |more: Value| {
        let mut request = json!({"model": "tiny", "training_file": file});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (request, status, param) in [
        (tune(json!({"model": "Qwen/Qwen2.5-7B-Instruct"})), 404, Value::Null),
        (tune(json!({"model": "https://hub/x"})), 404, Value::Null),
        (tune(json!({"appliance": {"job": "none"}})), 400, json!("job")),
        (tune(json!({"appliance": {"parameters": {"dtype": "s3://x/y"}}})), 400, json!("appliance.parameters")),
        (tune(json!({"appliance": {"memory": 1_u64 << 50}})), 400, Value::Null),
        (tune(json!({"appliance": {"gpus": 1}})), 400, Value::Null),
        (tune(json!({"appliance": {"needs": ["ftjob-000000000000000000000000"]}})), 400, json!("needs")),
        (tune(json!({"hyperparameters": {"n_epochs": -1}})), 400, json!("n_epochs")),
        (tune(json!({"surprise": 1})), 400, Value::Null),
    ] {
        let answer = appliance.post("/v1/fine_tuning/jobs", request.clone()).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (status, &param), "{request}: {answer:?}");
    }
    for (request, param) in [
        (json!({"kind": "run", "job": "measure", "env": {"X": "https://x"}}), "env"),
        (json!({"kind": "run", "job": "other"}), "job"),
        (json!({"kind": "run", "job": "measure", "priority": 1000}), "priority"),
    ] {
        let answer = appliance.post("/v1/appliance/jobs", request.clone()).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!(param)), "{request}: {answer:?}");
    }
    assert_eq!(appliance.get("/v1/appliance/jobs").await.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_paused_resumed_and_cancelled() {
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
    let path = format!("/v1/appliance/jobs/{}", created.body["id"].as_str().unwrap());
    appliance.wait(&path, "/state", json!("running")).await;
    assert_eq!(appliance.post(&format!("{path}/pause"), json!({})).await.status, 200);
    appliance.wait(&path, "/state", json!("paused")).await;
    assert_eq!(appliance.post(&format!("{path}/resume"), json!({})).await.body["state"], "queued");
    let again = appliance.wait(&path, "/state", json!("running")).await;
    assert_eq!(again["starts"], 2);
    assert_eq!(appliance.post(&format!("{path}/cancel"), json!({})).await.status, 200);
    appliance.wait(&path, "/state", json!("cancelled")).await;
    let late = appliance.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!((late.status, &late.body["error"]["code"]), (409, &json!("conflict")));
    let none = appliance.post("/v1/appliance/jobs/job-000000000000000000000000/pause", json!({})).await;
    assert_eq!((none.status, &none.body["error"]["code"]), (404, &json!("not_found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_say_who_may_what_and_changes_are_recorded() {
    let appliance = Appliance::start();
    let mut tokens = BTreeMap::new();
    for role in ["viewer", "operator", "admin"] {
        let made = appliance.post("/v1/appliance/tokens", json!({"name": format!("my {role}"), "role": role})).await;
        assert_eq!(made.status, 200, "{made:?}");
        tokens.insert(
            role,
            (made.body["id"].as_str().unwrap().to_owned(), made.body["token"].as_str().unwrap().to_owned()),
        );
    }
    let status = async |method: &str, path: &str, role: &str| {
        appliance.machine.ask(method, path, Some(&tokens[role].1)).await.status
    };
    for role in ["viewer", "operator", "admin"] {
        assert_eq!(status("GET", "/v1/models", role).await, 200);
        assert_eq!(status("GET", "/v1/appliance/audit", role).await, if role == "admin" { 200 } else { 403 });
        let cancel = "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/cancel";
        assert_eq!(status("POST", cancel, role).await, if role == "viewer" { 403 } else { 404 });
    }
    let revoked =
        appliance.machine.ask("DELETE", &format!("/v1/appliance/tokens/{}", tokens["viewer"].0), Some(TOKEN)).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(status("GET", "/v1/models", "viewer").await, 401);
    let listed = appliance.get("/v1/appliance/tokens").await.body;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert!(listed["data"][0].get("token").is_none(), "a token is shown once");
    let audit = appliance.get("/v1/appliance/audit?limit=100").await.body;
    let told: Vec<String> = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| {
            format!("{} {}", record["entry"]["who"].as_str().unwrap(), record["entry"]["outcome"].as_str().unwrap())
        })
        .collect();
    assert!(
        told.contains(&"my operator refused 404".to_owned()) && told.contains(&"site asked".to_owned()),
        "{told:?}"
    );
    let made = format!("site made {} (operator, my operator)", tokens["operator"].0);
    assert!(told.contains(&made), "{told:?}");
    assert!(!audit.to_string().contains(&tokens["operator"].1), "no token is recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_comes_in_parts() {
    let appliance = Appliance::start();
    let (head, tail) = EXAMPLES.split_at(20);
    let begin = json!({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": EXAMPLES.len(), "mime_type": "application/jsonl"});
    let upload = appliance.post("/v1/uploads", begin).await.body;
    let path = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    let mut parts = Vec::new();
    for part in [head, tail] {
        let body =
            format!("--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"p\"\r\n\r\n{part}\r\n--b--\r\n");
        let kind = "multipart/form-data; boundary=b";
        let answer = appliance.machine.send_body(&format!("{path}/parts"), TOKEN, kind, body.as_bytes()).await;
        assert_eq!(answer.body["object"], "upload.part", "{answer:?}");
        parts.push(answer.body["id"].clone());
    }
    let early = appliance.post(&format!("{path}/complete"), json!({"part_ids": [parts[0]]})).await;
    assert_eq!((early.status, &early.body["error"]["param"]), (400, &json!("bytes")));
    let done = appliance.post(&format!("{path}/complete"), json!({"part_ids": parts})).await.body;
    let file = done["file"]["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/files/{file}"), "/status", json!("processed")).await;
    let content = appliance.machine.get(&format!("/v1/appliance/files/{file}/report"), Some(TOKEN)).await;
    assert_eq!(content.body["examples"]["kept"], 2, "{content:?}");
    assert_eq!(appliance.post(&format!("{path}/cancel"), json!({})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_left_is_listed_and_taken_and_nothing_else_is() {
    let appliance = Appliance::start();
    let created = appliance.post("/v1/appliance/jobs", json!({"kind": "eval", "job": "measure"})).await.body;
    let id = created["id"].as_str().unwrap();
    let path = format!("/v1/appliance/jobs/{id}");
    appliance.wait(&path, "/state", json!("running")).await;
    let output = appliance.work.storage.output(id);
    fs::create_dir_all(output.join("deep")).unwrap();
    fs::write(output.join("deep/result.json"), "{\"score\":1}").unwrap();
    std::os::unix::fs::symlink(appliance.work.storage.database(), output.join("database")).unwrap();
    let mut log = gap_jobs::log::Log::open(&appliance.work.storage.log(id)).unwrap();
    log.append(gap_jobs::log::Stream::Out, b"hello", 5).unwrap();
    let listed = appliance.get(&format!("{path}/outputs")).await.body;
    assert_eq!(listed["data"], json!([{"path": "deep/result.json", "bytes": 11}]));
    assert_eq!(appliance.get(&format!("{path}/outputs/deep/result.json")).await.body, json!({"score": 1}));
    for bad in ["database", "../../../jobs.db", "%2e%2e/%2e%2e/%2e%2e/jobs.db", "deep"] {
        assert_eq!(appliance.get(&format!("{path}/outputs/{bad}")).await.status, 404, "{bad}");
    }
    let lines = appliance.get(&format!("{path}/log")).await.body;
    assert_eq!(lines["lines"], json!([{"at": 5, "stream": "stdout", "text": "hello"}]));
    assert_eq!(appliance.get(&format!("{path}/log?search=nothing")).await.body["lines"], json!([]));
    appliance.end(id, End::Exit(0)).await;
    appliance.wait(&path, "/state", json!("succeeded")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_measures_on_what_it_trains_on_is_warned_of_that() {
    let appliance = Appliance::start();
    let file = appliance.good_file().await;
    let create = async |validation: &str| {
        let request = json!({"model": "tiny", "training_file": file, "validation_file": validation});
        let created = appliance.post("/v1/fine_tuning/jobs", request).await;
        created.body["id"].as_str().unwrap_or_else(|| panic!("{created:?}")).to_owned()
    };
    let warnings = async |id: &str| -> Vec<String> {
        let events = appliance.get(&format!("/v1/fine_tuning/jobs/{id}/events")).await.body;
        let events = events["data"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["level"] == "warn").map(|event| event["message"].to_string()).collect()
    };
    let other = appliance.upload("{\"prompt\":\"4+4?\",\"completion\":\"8\"}\n").await.body;
    let other = other["id"].as_str().unwrap();
    appliance.wait(&format!("/v1/files/{other}"), "/status", json!("processed")).await;
    let measured = create(other).await;
    let same = create(&file).await;
    let until = Instant::now() + Duration::from_secs(60);
    let told = loop {
        let told = warnings(&same).await;
        if !told.is_empty() {
            break told;
        }
        assert!(Instant::now() < until, "nobody is warned");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told.len() == 1 && told[0].contains("2 of 2 examples"), "{told:?}");
    assert!(warnings(&measured).await.is_empty());
}
