//! How answers end, and how the server does.

use crate::process::{ENDLESS, Server, begin, send_signal, write_chat_model};
use serde_json::json;
use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_client_that_waits_for_a_whole_answer_and_goes_away_frees_its_place() {
    let server = Server::with_endless_chat(&["--sequences=1", "--requests=1"]);
    let request = json!({"model": "chat", "prompt": "Hello", "max_tokens": ENDLESS, "ignore_eos": true});
    let waiting = server.send("POST", "/v1/completions", "application/json", request.to_string().as_bytes());
    server.wait_until("gap_serve_running", 1);
    drop(waiting);
    server.wait_until("gap_serve_taken", 0);
    server.wait_until("gap_serve_cache_positions", 0);
}

#[test]
fn an_answer_goes_on_to_its_end_when_the_server_is_told_to_stop() {
    let mut server = Server::with_chat("llama", &["--sequences=1"]);
    let (mut answer, mut seen) = begin(&server, 240);
    server.terminate();
    answer.read_to_end(&mut seen).unwrap();
    let text = String::from_utf8(seen).unwrap();
    assert!(text.contains("\"finish_reason\":\"length\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    drop(answer);
    assert!(server.ended().success());
}

#[test]
fn a_server_that_still_loads_ends_when_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    write_chat_model("llama", &model);
    // Nobody ever writes into it: the model is not loaded in any time.
    fs::remove_file(model.join("config.json")).unwrap();
    assert!(Command::new("mkfifo").arg(model.join("config.json")).status().unwrap().success());
    let socket = directory.path().join("socket");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gap-serve"));
    command.args([format!("--model=m={}", model.display()), format!("--listen=unix:{}", socket.display())]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if !told && socket.exists() {
            told = true;
            send_signal(&child, "-TERM");
        }
        if begin.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(told && status.success() && said.contains("stops before its models are loaded"), "{status}: {said}");
}
