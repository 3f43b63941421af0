//! An appliance that somebody else has taken over wants the terminal as well.

use super::{Person, appliance::Appliance, said};
use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use std::process::Output;

/// A clipboard, a title, a colour in one character, and text that runs backwards.
const COMMANDS: &str = "good\u{1b}]52;c;cm0gLXJm\u{7}\u{1b}]0;root\u{7}\r\u{9b}31m\u{202e}";

fn hostile() -> Router {
    let refused = || async { (StatusCode::CONFLICT, Json(json!({"error": {"message": COMMANDS}}))) };
    let log = format!("{COMMANDS}\n{}\n", json!({"text": COMMANDS}));
    Router::new()
        .route("/v1/system", get(|| async { Json(json!({"hostname": COMMANDS})) }))
        .route("/healthz", get(|| async { Json(json!({"status": COMMANDS})) }))
        .route("/v1/appliance/jobs/job-1", get(|| async { Json(job()) }))
        .route("/v1/appliance/jobs/job-1/events", get(|| async { Json(json!({"data": []})) }))
        .route("/v1/appliance/jobs/job-1/log", get(|| async { log }))
        .route("/v1/appliance/jobs/job-1/metrics", get(|| async { COMMANDS }))
        .route("/v1/appliance/jobs/job-2/log", get(|| async { "x".repeat(3 << 20) }))
        .route("/v1/appliance/debug", post(|| async { Json(job()) }))
        .route("/v1/fine_tuning/jobs/ftjob-1", get(|| async { Json(tuning()) }))
        .route("/v1/fine_tuning/jobs/ftjob-1/events", get(|| async { Json(json!({"data": []})) }))
        .route("/v1/files", get(|| async { Json(json!({"data": [file()], "has_more": true})) }))
        .route(
            "/v1/chat/completions",
            post(|| async { format!("data: {}\n\n", json!({"error": {"message": COMMANDS}})) }),
        )
        .fallback(refused)
}

fn job() -> Value {
    json!({
        "id": COMMANDS, "kind": "run", "name": COMMANDS, "state": "failed", "reason": COMMANDS, "image": "x",
        "command": [COMMANDS], "starts": 1, "priority": 0, "gpus": [], "memory": 1, "ran_seconds": 1, "created_at": 0,
    })
}

fn tuning() -> Value {
    json!({
        "id": "ftjob-1", "model": COMMANDS, "status": "failed", "created_at": 0, "training_file": "file-1",
        "error": {"message": COMMANDS},
    })
}

fn file() -> Value {
    json!({
        "id": COMMANDS, "bytes": 1, "created_at": 0, "filename": COMMANDS, "purpose": "x", "status": "x",
    })
}

fn commands(output: &Output) -> Vec<char> {
    let commands = |c: &char| c.is_control() && !matches!(c, '\n' | '\t') || *c == '\u{202e}';
    said(output).chars().filter(commands).collect()
}

#[test]
fn nothing_that_it_says_commands_a_terminal() {
    let appliance = Appliance::answering(hostile());
    let person = Person::new();
    let login = ["login", &appliance.address, "--fingerprint", &appliance.fingerprint.to_string()];
    let output = person.types(&login, "token");
    assert!(output.status.success() && commands(&output).is_empty(), "{:?}", said(&output));
    for (arguments, code) in [
        (&["health"][..], 4),
        (&["storage"], 1),
        (&["file", "list"], 0),
        (&["job", "wait", "job-1"], 4),
        (&["job", "log", "job-1", "--follow"], 0),
        (&["finetune", "wait", "ftjob-1"], 4),
        (&["chat", "base", "hello"], 1),
        (&["debug", "train"], 1),
        (&["selftest"], 1),
        (&["--json", "storage"], 1),
    ] {
        let output = person.does(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {:?}", said(&output));
        assert!(said(&output).contains("good"), "{arguments:?}: {:?}", said(&output));
        assert!(commands(&output).is_empty(), "{arguments:?}: {:?}", said(&output));
    }
    // A program gets what came.
    let output = person.does(&["job", "metrics", "job-1"]);
    assert_eq!(output.stdout, format!("{COMMANDS}\n").into_bytes());
    let output = person.does(&["--json", "health"]);
    assert_eq!(output.stdout, format!("{}\n", json!({"status": COMMANDS})).into_bytes());
}

#[test]
fn a_line_without_end_is_given_up() {
    let appliance = Appliance::answering(hostile());
    let output = Person::of(&appliance).does(&["job", "log", "job-2", "--follow"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("longer than 1048576 bytes"), "{:?}", said(&output));
    assert!(output.stdout.is_empty());
}
