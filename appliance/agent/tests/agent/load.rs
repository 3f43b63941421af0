//! Many clients, and bad ones: what they leave behind, seen through the API.

use crate::{
    appliance::Appliance,
    daemon::Running,
    machine::{TOKEN, connect_by_fingerprint, statuses},
    release::Booted,
};
use gap_format::Digest;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Wrong tokens in all, and connections that they come on.
const WRONG: (usize, usize) = (10_000, 20);
/// Where they come from: not where the admin sits, who is not to be locked out with them.
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Sends so many wrong tokens, each another one, in one go on this connection. Returns how often each status came.
async fn pour(mut stream: impl AsyncRead + AsyncWrite + Unpin, from: usize, count: usize) -> BTreeMap<u16, usize> {
    let request = |n: usize| {
        let close = if n + 1 == from + count { "Connection: close\r\n" } else { "" };
        format!("GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong-{n}\r\n{close}\r\n")
    };
    let all: String = (from..from + count).map(request).collect();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.unwrap();
    statuses(&answers)
}

fn added(mut one: BTreeMap<u16, usize>, other: BTreeMap<u16, usize>) -> BTreeMap<u16, usize> {
    for (status, count) in other {
        *one.entry(status).or_default() += count;
    }
    one
}

/// Everything that the API tells of what is kept.
async fn state(appliance: &Appliance) -> Vec<Value> {
    let mut told = Vec::new();
    for path in
        ["/v1/files", "/v1/appliance/jobs", "/v1/models", "/v1/appliance/tokens", "/v1/appliance/audit?limit=1000"]
    {
        let answer = appliance.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        told.push(answer.body);
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wrong_tokens_open_nothing_and_change_nothing() {
    let appliance = Appliance::start();
    appliance.good_file().await;
    let job = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await.body;
    let path = format!("/v1/appliance/jobs/{}", job["id"].as_str().unwrap());
    appliance.wait(&path, "/state", json!("running")).await;
    let before = state(&appliance).await;
    let (all, connections) = WRONG;
    let (each, mut answers) = (all / connections, BTreeMap::new());
    for n in 0..connections {
        let stream = appliance.machine.connect_from(ELSEWHERE).await;
        answers = added(answers, pour(stream, n * each, each).await);
    }
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [401, 429], "{answers:?}");
    assert_eq!(answers.values().sum::<usize>(), all);
    assert!(state(&appliance).await == before, "something was changed");
    assert_eq!(appliance.get("/healthz").await.body["status"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wrong_tokens_do_not_fill_the_memory() {
    let booted = Booted::new();
    booted.write_site(&format!("[api]\ntoken_sha256 = '{}'", Digest::of(b"my own").to_hex()));
    let agent = Running::start_until(&booted, "NO JOBS ARE TAKEN");
    let (all, connections) = WRONG;
    let each = all / connections;
    let send = async |n: usize| {
        let stream = connect_by_fingerprint(agent.address, &agent.fingerprint, Some(ELSEWHERE)).await;
        pour(stream, n * each, each).await
    };
    // The first ones load what is needed in any case.
    send(0).await;
    let before = agent.memory();
    for n in 1..connections {
        assert_eq!(send(n).await.values().sum::<usize>(), each);
    }
    let grown = agent.memory().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more than {before}");
    assert_eq!(agent.ask("GET", "/v1/system", "my own").await.status, 200, "the admin is not locked out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_clients_at_once_nothing_is_lost() {
    let appliance = Arc::new(Appliance::start());
    let clients: Vec<_> = (0..100)
        .map(|n| {
            let appliance = Arc::clone(&appliance);
            tokio::spawn(async move {
                let file = appliance.upload(&format!("{{\"prompt\":\"{n}+0?\",\"completion\":\"{n}\"}}\n")).await;
                let job = appliance.post("/v1/appliance/jobs", json!({"kind": "run", "job": "measure"})).await;
                let id = |answer: &Value| answer["id"].as_str().unwrap().to_owned();
                let (file, job) = (id(&file.body), id(&job.body));
                let cancelled = appliance.post(&format!("/v1/appliance/jobs/{job}/cancel"), json!({})).await;
                assert_eq!(cancelled.status, 200, "{cancelled:?}");
                (file, job)
            })
        })
        .collect();
    let (mut files, mut jobs) = (BTreeSet::new(), BTreeSet::new());
    for client in clients {
        let (file, job) = client.await.unwrap();
        assert!(files.insert(file) && jobs.insert(job), "each has its own");
    }
    let ended = async |path: &str, field: &str, end: &str, wanted: &BTreeSet<String>| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let list = appliance.get(&format!("{path}?limit=1000")).await.body;
            let rows: BTreeMap<&str, &str> = list["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (row["id"].as_str().unwrap(), row[field].as_str().unwrap()))
                .collect();
            assert!(rows.keys().copied().eq(wanted.iter().map(String::as_str)), "{path}");
            if rows.values().all(|state| *state == end) {
                return;
            }
            assert!(Instant::now() < until, "{rows:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    ended("/v1/files", "status", "processed", &files).await;
    ended("/v1/appliance/jobs", "state", "cancelled", &jobs).await;
    let audit = appliance.machine.get("/v1/appliance/audit?limit=1000", Some(TOKEN)).await.body;
    let records = audit["data"].as_array().unwrap();
    assert_eq!(records.len(), 500, "each of 300 changes is recorded once, and what 200 of them made");
    for (one, next) in records.iter().zip(&records[1..]) {
        assert_eq!(one["hash"], next["previous"]);
    }
}
