//! What is refused, and how it is said.

use crate::process::{Server, complaint, write_chat_model};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The field that a refusal names.
fn param(reply: &crate::process::Reply) -> String {
    refusal(reply, 400);
    reply.json()["error"]["param"].as_str().unwrap().to_owned()
}

#[test]
fn a_refusal_names_a_field_that_the_path_has() {
    let server = Server::with_everything(&[]);
    for (more, expected) in [
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": "x q ".repeat(150), "max_tokens": 1}), "prompt"),
        (json!({"prompt": "x".repeat(1 << 20)}), "prompt"),
        (json!({"prompt": "x", "max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "x", "logprobs": 21}), "logprobs"),
    ] {
        let mut request = json!({"model": "chat"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(param(&server.post("/v1/completions", &request)), expected, "{more}");
    }
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "bad"}}}]);
    for (more, expected) in [
        (json!({"max_tokens": 5000}), "messages"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"tools": tools, "tool_choice": "required"}), "tools"),
    ] {
        let mut request = json!({"model": "chat", "messages": [{"role": "user", "content": "x"}]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(param(&server.post("/v1/chat/completions", &request)), expected, "{more}");
    }
}

/// Checks OpenAI's shape; the code and the message.
fn refusal(reply: &crate::process::Reply, status: u16) -> (String, String) {
    assert_eq!(reply.status, status, "{reply:?}");
    let error = reply.json()["error"].clone();
    let fields: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["message", "type", "param", "code"]);
    (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

#[test]
fn bad_requests_get_openais_error() {
    let server = Server::with_everything(&[]);
    let chat = |more: Value| {
        let mut request = json!({"model": "chat", "messages": [{"role": "user", "content": "x"}]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let wrong = [
        (chat(json!({"messages": []})), "messages"),
        (chat(json!({"messages": [{"role": "user"}]})), "content"),
        (chat(json!({"messages": [{"role": "robot", "content": "x"}]})), "robot"),
        (chat(json!({"temperature": 3})), "temperature"),
        (chat(json!({"top_p": -0.1})), "top_p"),
        (chat(json!({"n": 0})), "`n`"),
        (chat(json!({"n": 17})), "`n`"),
        (chat(json!({"stop": vec!["x"; 17]})), "16 texts"),
        (chat(json!({"temprature": 1})), "temprature"),
        (chat(json!({"top_logprobs": 3})), "logprobs"),
        (chat(json!({"logprobs": true, "top_logprobs": 21})), "20"),
        (chat(json!({"stream_options": {}})), "stream"),
        (chat(json!({"tool_choice": "required"})), "tools"),
        (chat(json!({"response_format": {"type": "xml"}})), "xml"),
        (chat(json!({"response_format": {"type": 1}})), "no text"),
        (chat(json!({"messages": [{"role": "user", "content": [{"type": 0, "text": "x"}]}]})), "Content"),
        (
            chat(
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "bad"}}}}),
            ),
            "bad",
        ),
        (chat(json!({"max_tokens": 5000})), "5000"),
        (chat(json!({"max_tokens": 0})), "at least one"),
        (chat(json!({"messages": [{"role": "user", "content": "x q ".repeat(2000)}]})), "tokens"),
    ];
    for (request, expected) in wrong {
        let (_, message) = refusal(&server.post("/v1/chat/completions", &request), 400);
        assert!(message.contains(expected), "{message} does not name {expected}");
    }
    for (path, request) in [
        ("/v1/completions", json!({"model": "chat", "prompt": []})),
        ("/v1/completions", json!({"model": "chat", "prompt": [99999]})),
        ("/v1/completions", json!({"model": "chat", "prompt": "x", "best_of": 3})),
        ("/v1/embeddings", json!({"model": "embed", "input": ""})),
        ("/v1/embeddings", json!({"model": "embed", "input": [[]]})),
        ("/v1/embeddings", json!({"model": "embed", "input": [99999]})),
        ("/v1/embeddings", json!({"model": "embed", "input": "x ".repeat(500)})),
        ("/v1/embeddings", json!({"model": "embed", "input": "x", "dimensions": 7})),
        ("/v1/classify", json!([])),
    ] {
        refusal(&server.post(path, &request), 400);
    }
    for (path, request) in [
        ("/v1/chat/completions", chat(json!({"model": "embed"}))),
        ("/v1/embeddings", json!({"model": "chat", "input": "x"})),
        ("/v1/classify", json!({"model": "embed", "input": "x"})),
    ] {
        let (code, message) = refusal(&server.post(path, &request), 404);
        assert!(code == "model_not_supported" && message.contains("/v1/models"), "{code}: {message}");
    }
    assert_eq!(
        refusal(&server.post("/v1/chat/completions", &chat(json!({"model": "none"}))), 404).0,
        "model_not_found"
    );
    assert_eq!(refusal(&server.get("/v1/models/none"), 404).0, "model_not_found");
    assert_eq!(refusal(&server.get("/v1/models/%FF"), 400).0, "invalid_value");
    assert_eq!(refusal(&server.get("/v2"), 404).0, "unknown_path");
    assert_eq!(refusal(&server.get("/v1/embeddings"), 405).0, "method_not_allowed");
    assert_eq!(refusal(&server.raw("POST", "/v1/classify", "text/plain", b"{}"), 415).0, "unsupported_media_type");
    refusal(&server.raw("POST", "/v1/classify", "application/json", b"{\"model\": "), 400);
    refusal(&server.raw("POST", "/v1/classify", "application/json", b"\xff\xfe"), 400);
    let long = format!("{{\"model\": \"{}\"}}", "x".repeat(9 << 20));
    assert_eq!(
        refusal(&server.raw("POST", "/v1/classify", "application/json", long.as_bytes()), 413).0,
        "request_too_large"
    );
    assert_eq!(server.get("/health").status, 200);
}

fn with_model(damage: impl FnOnce(&Path), more: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    write_chat_model("llama", &model);
    damage(&model);
    let mut arguments = vec![format!("--model=m={}", model.display()), "--listen=127.0.0.1:0".to_owned()];
    arguments.extend(more.iter().map(|argument| argument.replace("DIR", directory.path().to_str().unwrap())));
    complaint(&arguments)
}

#[test]
fn the_server_does_not_start_with_what_it_cannot_serve() {
    let said = with_model(|model| fs::remove_file(model.join("tokenizer.json")).unwrap(), &[]);
    assert!(said.contains("model `m`") && said.contains("tokenizer.json"), "{said}");
    let change = |model: &Path, from: &str, to: &str| {
        let path = model.join("tokenizer.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let said = with_model(|model| change(model, "\"<|im_end|>\": 3", "\"<|im_end|>\": 9999"), &[]);
    assert!(said.contains("9999") && said.contains("not of one piece"), "{said}");
    let said = with_model(
        |model| fs::write(model.join("tokenizer_config.json"), "{\"chat_template\": \"{% if\"}").unwrap(),
        &[],
    );
    assert!(said.contains("chat template"), "{said}");
    let ends = json!({"eos_token_id": [1, 383]}).to_string();
    let said = with_model(|model| fs::write(model.join("generation_config.json"), &ends).unwrap(), &[]);
    assert!(said.contains("token 383") && said.contains("not of one piece"), "{said}");
    let said = with_model(|model| fs::write(model.join("config.json"), "{").unwrap(), &[]);
    assert!(said.contains("config.json"), "{said}");
    let said = with_model(|_| (), &["--adapter=a=other:DIR/model"]);
    assert!(said.contains("adapter `a` is for `other`"), "{said}");
    let said = with_model(|_| (), &["--adapter=a=m:DIR/model"]);
    assert!(said.contains("adapter_config.json"), "{said}");
    let said = with_model(|_| (), &["--cache=1KiB"]);
    assert!(said.contains("--cache"), "{said}");
    let said = complaint(&["--model=m=/nowhere".to_owned(), "--listen=0.0.0.0:80".to_owned()]);
    assert!(said.contains("other machines could reach it"), "{said}");
}

#[test]
fn the_document_has_exactly_the_paths_that_there_are() {
    let server = Server::with_chat("llama", &[]);
    let document = server.get("/openapi.json").json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", "chat");
        for method in ["GET", "POST"] {
            let reply = server.raw(method, &path, "application/json", b"{}");
            let there = methods.get(method.to_lowercase()).is_some();
            assert_eq!(there, reply.status != 405, "{method} {path}: {reply:?}");
            assert_ne!(reply.status, 404, "{method} {path}");
        }
    }
}
