//! What happens when there is too much.

use crate::process::{self, ENDLESS, Server};
use serde_json::{Value, json};
use std::{os::unix::net::UnixStream, thread};

/// An answer that does not end by itself, of which the first piece has come.
fn begin(server: &Server) -> UnixStream {
    process::begin(server, ENDLESS).0
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let server = Server::with_endless_chat(&["--sequences=1", "--requests=1"]);
    for gone in 1..=3 {
        drop(begin(&server));
        server.wait_until("gap_serve_taken", 0);
        server.wait_until("gap_serve_cache_positions", 0);
        assert!(server.measured("gap_serve_abandoned_total") <= gone);
    }
    // Each was given up long before its end.
    assert!(server.measured("gap_serve_answer_tokens_total") < ENDLESS as u64);
}

#[test]
fn more_requests_than_places_are_told_to_come_back() {
    let server = Server::with_endless_chat(&["--sequences=1", "--requests=2"]);
    let running = begin(&server);
    let request = json!({"model": "chat", "prompt": "x", "max_tokens": 2, "n": 2});
    let reply = server.post("/v1/completions", &request);
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.head.contains("retry-after: "), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    drop(running);
    server.wait_until("gap_serve_taken", 0);
    server.ask("/v1/completions", &request);
}

#[test]
fn a_request_for_more_answers_than_there_are_places_is_told_not_to_come_back() {
    let server = Server::with_chat("llama", &["--requests=3"]);
    for (prompt, n) in [(json!("x"), 4), (json!(["x", "y"]), 2)] {
        let reply = server.post("/v1/completions", &json!({"model": "chat", "prompt": prompt, "n": n}));
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str(), reply.json()["error"]["param"].as_str()),
            (400, Some("too_many_answers"), Some("n")),
            "{reply:?}"
        );
        assert!(!reply.head.contains("retry-after"), "{reply:?}");
    }
    assert_eq!(server.measured("gap_serve_taken"), 0);
}

#[test]
fn a_request_without_a_place_is_refused_before_anything_is_done_for_it() {
    let server = Server::with_endless_chat(&["--sequences=1", "--requests=1"]);
    let running = begin(&server);
    let long = "x q ".repeat(1 << 20);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "bad"}}});
    for (path, request) in [
        ("/v1/completions", json!({"model": "chat", "prompt": long})),
        ("/v1/chat/completions", json!({"model": "chat", "messages": [{"role": "user", "content": long}]})),
        (
            "/v1/chat/completions",
            json!({"model": "chat", "messages": [{"role": "user", "content": "x"}], "response_format": schema}),
        ),
    ] {
        assert_eq!(server.post(path, &request).status, 429, "{path}");
    }
    assert_eq!(server.measured("gap_serve_grammars_total"), 0);
    drop(running);
    server.wait_until("gap_serve_taken", 0);
}

#[test]
fn a_text_that_cannot_fit_is_refused_unread() {
    let server = Server::with_chat("llama", &[]);
    let long = "x q ".repeat(1 << 20);
    for (path, request) in [
        ("/v1/completions", json!({"model": "chat", "prompt": ["x", long]})),
        ("/v1/chat/completions", json!({"model": "chat", "messages": [{"role": "user", "content": long}]})),
    ] {
        let error = server.post(path, &request).json()["error"].clone();
        assert_eq!(error["code"], "context_length_exceeded");
        assert!(error["message"].as_str().unwrap().contains("bytes; the model has room for 256 tokens"), "{error}");
    }
    server.wait_until("gap_serve_taken", 0);
}

#[test]
fn a_request_beyond_the_memory_is_refused_and_the_others_go_on() {
    let server = Server::with_chat("llama", &["--cache=96KiB", "--sequences=4"]);
    // 128 positions of 3 layers with 2 heads of 16 values.
    assert_eq!(server.get("/v1/models/chat").json()["max_model_len"], 127);
    let long = json!({"model": "chat", "prompt": "word ".repeat(100), "max_tokens": 100});
    let reply = server.post("/v1/completions", &long);
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("context_length_exceeded")),
        "{reply:?}"
    );

    // Together these need three times what there is: some make room and begin anew, and all answer as they do alone.
    let ask = |seed: u64| -> Value {
        let request = json!({
            "model": "chat", "prompt": format!("Number {seed}"), "max_tokens": 80, "ignore_eos": true, "seed": seed,
        });
        server.ask("/v1/completions", &request)["choices"][0]["text"].clone()
    };
    let alone: Vec<Value> = (0..4).map(ask).collect();
    let together: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|seed| scope.spawn(move || ask(seed))).collect();
        running.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    assert!(server.measured("gap_serve_preempted_total") > 0);
    assert_eq!(server.get("/health").status, 200);
}
