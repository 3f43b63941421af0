//! The real server on loopback: who is let in, what is told, and what bad clients get.

use crate::machine::{Machine, TOKEN, read_answer, statuses};
use gap_agent::{scrub, server::Limits};
use gap_handover::control::Request;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn short() -> Limits {
    let short = Duration::from_millis(300);
    Limits { handshake: short, head: short, body: short, ..Limits::default() }
}

#[tokio::test]
async fn health_is_open_and_nothing_else_is() {
    let machine = Machine::start(Limits::default());
    let health = machine.get("/healthz", None).await;
    assert_eq!((health.status, &health.body), (200, &json!({"status": "ok", "jobs": "starting"})));
    assert!(health.head.contains("cache-control: no-store"), "{}", health.head);
    let system = machine.get("/v1/system", None).await;
    assert_eq!((system.status, &system.body["error"]["code"]), (401, &json!("missing_token")));
    assert!(system.head.contains("www-authenticate: bearer"), "{}", system.head);
    assert_eq!(machine.ask("POST", "/v1/system/poweroff", None).await.status, 401);
    assert_eq!(machine.get("/v1/system", Some("wrong")).await.body["error"]["code"], "invalid_token");
    assert_eq!(machine.get("/v1/system", Some("")).await.status, 401);
    assert!(machine.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_system_tells_everything_to_who_knows_the_token() {
    let machine = Machine::start(Limits::default());
    let answer = machine.get("/v1/system", Some(TOKEN)).await;
    assert_eq!(answer.status, 200);
    let system = answer.body;
    assert_eq!(system["release"]["serial"], 3);
    assert_eq!(system["trust"]["secure_boot"], "disabled");
    assert!(system["trust"]["worth"].as_str().unwrap().contains("not an attacker"));
    assert_eq!(system["layers"][1]["state"], "unread");
    assert_eq!(system["stages"][0], json!({"name": "kernel", "ended_ms": 900}));
    assert_eq!(system["stages"][1]["name"], "agent started");
    assert_eq!(system["devices"]["pci"][0]["vendor"], "0x10de");
    assert_eq!(system["certificate_sha256"], machine.system.identity.fingerprint().to_hex());
    assert!(!system.to_string().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_fails_at_work_is_told_everywhere() {
    let machine = Machine::start(Limits::default());
    let xid = "3,1,2,-;NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 119, pid=7, Timeout waiting for RPC from GSP!\n";
    std::fs::write(machine.system.root.at("/dev/kmsg"), xid).unwrap();
    let metrics = machine.get("/metrics", Some(TOKEN)).await.text;
    for line in [r#"gapimage_gpus{health="failed"} 1"#, "gapimage_degraded 1", "gapimage_gpu_metrics_left_out 0"] {
        assert!(metrics.lines().any(|other| other == line), "{line}: {metrics}");
    }
    assert_eq!(machine.get("/healthz", None).await.body["status"], "degraded");
    let system = machine.get("/v1/system", Some(TOKEN)).await.body;
    assert_eq!(
        (&system["status"], &system["gpus"]["gpus"][0]["health"]["verdict"]),
        (&json!("degraded"), &json!("failed"))
    );
    assert!(system["gpus"].to_string().contains("Xid 119: its firmware does not answer"), "{system}");
    assert!(machine.system.gpus.failed_slots().contains("MIG-1"));
}

#[tokio::test]
async fn wrong_tokens_lock_the_address_out() {
    let machine = Machine::start(Limits::default());
    for _ in 0..10 {
        assert_eq!(machine.get("/v1/system", Some("guess")).await.status, 401);
    }
    for token in ["guess", TOKEN] {
        let answer = machine.get("/v1/system", Some(token)).await;
        assert_eq!((answer.status, &answer.body["error"]["type"]), (429, &json!("rate_limit_error")));
        let wait: u64 =
            answer.head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(machine.get("/healthz", None).await.status, 200, "health stays open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_waits_and_nobody_else_does() {
    let machine = Machine::start(Limits::default());
    let mut stream = machine.connect().await.unwrap();
    let request = format!("GET /v1/appliance/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n");
    let last = format!("{request}Connection: close\r\n\r\n");
    // In one go on one connection: faster than any bucket fills.
    stream.write_all((format!("{request}\r\n").repeat(900) + &last).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let counts = statuses(&bytes);
    let count = |status| counts.get(&status).copied().unwrap_or(0);
    let (taken, refused) = (count(200), count(429));
    assert!(taken >= 500 && refused > 0 && taken + refused == 901, "{taken} taken, {refused} refused");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("retry-after: 1") && text.contains("rate_limit_exceeded"));
    assert_eq!(machine.get("/healthz", None).await.status, 200);
    // Talking to models has a bucket of its own; there is none here.
    assert_eq!(machine.post("/v1/completions", TOKEN, &json!({"model": "x"})).await.status, 503);
}

#[tokio::test]
async fn power_is_asked_of_pid_1() {
    let machine = Machine::start(Limits::default());
    let answer = machine.ask("POST", "/v1/system/poweroff", Some(TOKEN)).await;
    assert_eq!((answer.status, &answer.body), (202, &json!({"status": "powering_off"})));
    assert_eq!(machine.ask("POST", "/v1/system/reboot", Some(TOKEN)).await.status, 202);
    assert_eq!(*machine.asked.lock().unwrap(), [Request::PowerOff, Request::Reboot]);
    assert_eq!(machine.get("/v1/system/poweroff", Some(TOKEN)).await.status, 405);
}

#[tokio::test]
async fn errors_have_one_shape() {
    let machine = Machine::start(Limits::default());
    for (method, path, status) in [("GET", "/nothing", 404), ("POST", "/healthz", 405), ("GET", "/v1/system", 401)] {
        let answer = machine.ask(method, path, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let error = answer.body["error"].as_object().unwrap();
        let mut keys: Vec<&String> = error.keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"]);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let machine = Machine::start(Limits::default());
    let body = "x".repeat(70_000);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let request =
        format!("POST /v1/system/reboot HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {}\r\n\r\n{body}", body.len());
    let answer = machine.send(request.as_bytes()).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (413, &json!("request_too_large")));
    let chunks = format!("{:x}\r\n{body}\r\n", body.len()).repeat(3);
    let request =
        format!("POST /v1/system/reboot HTTP/1.1\r\nHost: x\r\n{token}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    assert_eq!(machine.send(request.as_bytes()).await.status, 413);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(machine.send(request.as_bytes()).await.status, 431);
    let fields: String = (0..100).map(|n| format!("X-{n}: x\r\n")).collect();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    assert_eq!(machine.send(request.as_bytes()).await.status, 431);
    let request = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    assert!((400..500).contains(&machine.send(request.as_bytes()).await.status));
    assert_eq!(machine.get("/healthz", None).await.status, 200);
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let machine = Machine::start(short());
    let began = Instant::now();
    let mut silent = TcpStream::connect(machine.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "a client that never greets");
    let mut head = machine.connect().await.unwrap();
    head.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    let answer = read_answer(&mut head).await;
    assert!(answer.status == 0 || answer.status == 408, "{answer:?}");
    let mut body = machine.connect().await.unwrap();
    let request = "POST /v1/system/reboot HTTP/1.1\r\nHost: x\r\n";
    let request = format!("{request}Authorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\nx");
    body.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut body).await.status, 408);
    let mut stranger = machine.connect().await.unwrap();
    stranger.write_all(b"POST /v1/system/reboot HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx").await.unwrap();
    assert_eq!(read_answer(&mut stranger).await.status, 401, "nothing is read of who has no token");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_gets_no_answer() {
    let machine = Machine::start(short());
    for bytes in [
        &b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 600],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\0\x05hello",
    ] {
        let mut stream = TcpStream::connect(machine.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");
    }
    assert_eq!(machine.get("/healthz", None).await.status, 200);
}

#[tokio::test]
async fn a_client_that_trusts_another_certificate_does_not_connect() {
    let machine = Machine::start(Limits::default());
    let other = Arc::new(gap_agent::certificate::Identity::make("localhost", &[]).unwrap());
    let stream = TcpStream::connect(machine.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    assert!(crate::machine::connector(&other).connect(name, stream).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_are_served_at_once() {
    let machine = Arc::new(Machine::start(Limits::default()));
    let clients: Vec<_> = (0..100)
        .map(|n| {
            let machine = machine.clone();
            tokio::spawn(async move {
                let path = if n % 2 == 0 { "/v1/system" } else { "/healthz" };
                machine.get(path, Some(TOKEN)).await.status
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_clients_than_allowed_wait_their_turn() {
    let machine = Arc::new(Machine::start(Limits { connections: 2, ..short() }));
    let idle = [machine.connect().await.unwrap(), machine.connect().await.unwrap()];
    // Both places are taken by clients that say nothing; their time runs out, and the third is served.
    assert_eq!(machine.get("/healthz", None).await.status, 200);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_layer_is_reported_and_the_appliance_still_answers() {
    let machine = Machine::start(Limits::default());
    let root = machine.system.root.clone();
    let open: Box<scrub::Open> = Box::new(move |layer| scrub::layers::open(&root, layer));
    let (board, more) = (machine.system.scrub.clone(), Box::new(|_: &[scrub::Layer]| Vec::new()));
    let scrubber = scrub::start(board, u64::MAX, Arc::default(), more, open).unwrap();
    tokio::task::spawn_blocking(move || scrubber.join().unwrap()).await.unwrap();
    let health = machine.get("/healthz", None).await;
    assert_eq!((health.status, &health.body), (200, &json!({"status": "degraded", "jobs": "starting"})));
    let system = machine.get("/v1/system", Some(TOKEN)).await.body;
    assert_eq!(system["status"], "degraded");
    assert_eq!(system["layers"][0]["state"], "verified");
    assert_eq!(system["layers"][1]["state"], "damaged");
    assert_eq!(system["layers"][1]["damaged"], json!([{"offset": 8192, "length": 8192}]));
}

#[tokio::test]
async fn a_stopping_server_finishes_and_lets_go() {
    let machine = Machine::start(Limits { shutdown: Duration::from_millis(500), ..Limits::default() });
    let idle = machine.connect().await.unwrap();
    let began = Instant::now();
    machine.stop.send_replace(true);
    machine.serving.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(TcpStream::connect(machine.address).await.is_err());
    drop(idle);
}
