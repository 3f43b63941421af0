//! Something that answers as an appliance does, as far as the tests ask.

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Multipart, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use gap_agent::certificate::Identity;
use gapctl::client::Fingerprint;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    sync::{Arc, Mutex},
    thread,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

pub const TOKEN: &str = "right-token";
pub const CODE: &str = "1234-5678-9abc-defg";

#[derive(Default)]
pub struct Seen {
    /// Parts of uploads, as they came.
    pub parts: Vec<Vec<u8>>,
    /// How many parts are taken before one breaks off.
    pub breaks_after: Option<usize>,
    /// Bodies of requests to create something.
    pub wanted: Vec<Value>,
    /// How many looks at a job or a file come before one that is not answered.
    pub answers_until: Option<usize>,
}

pub struct Appliance {
    pub address: String,
    pub fingerprint: Fingerprint,
    pub pem: String,
    pub seen: Arc<Mutex<Seen>>,
}

type Shared = State<Arc<Mutex<Seen>>>;

impl Appliance {
    pub fn start() -> Self {
        Self::start_for(None)
    }

    /// One that listens only to clients of these authorities (PEM).
    pub fn start_for(clients: Option<&str>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        Self::serve(router(Arc::clone(&seen)), seen, clients)
    }

    /// One that answers with these routes.
    pub fn answering(router: Router) -> Self {
        Self::serve(router, Arc::default(), None)
    }

    fn serve(router: Router, seen: Arc<Mutex<Seen>>, clients: Option<&str>) -> Self {
        let identity = Arc::new(Identity::make("rack4", &[]).unwrap());
        let certificate = identity.certificate();
        let pem = pem(&certificate);
        let config = identity.server_config(clients).unwrap();
        let (sender, port) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap().port()).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, router) = (acceptor.clone(), router.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = TowerToHyperService::new(router);
                        let http = hyper::server::conn::http1::Builder::new();
                        drop(http.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
                    });
                }
            });
        });
        let address = format!("https://localhost:{}", port.recv().unwrap());
        Self { address, fingerprint: Fingerprint::of(&certificate), pem, seen }
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn router(seen: Arc<Mutex<Seen>>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "degraded"})) }))
        .route("/v1/system", get(system))
        .route("/v1/appliance/claim", post(claim))
        .route("/v1/uploads", post(|| async { Json(json!({"id": "upload-1", "status": "pending"})) }))
        .route("/v1/appliance/uploads/upload-1", get(|| async { Json(json!({"id": "upload-1", "status": "pending"})) }))
        .route("/v1/uploads/upload-1/parts", post(part))
        .route("/v1/uploads/upload-1/complete", post(complete))
        .route("/v1/files/{id}", get(look_at_file))
        .route("/v1/files/{id}/content", get(|| async { Response::new(Body::from("content\n")) }))
        .route("/v1/fine_tuning/jobs", post(wanted))
        .route("/v1/fine_tuning/jobs/ftjob-1", get(look_at_tuning))
        .route("/v1/fine_tuning/jobs/ftjob-1/events", get(events))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(go_on))
        .route("/v1/embeddings", post(embed))
        .route("/v1/appliance/selftest", post(|| async { Json(run("job-1")) }))
        .route("/v1/appliance/debug", post(debug))
        .route("/v1/appliance/jobs/{id}", get(look_at_job))
        .route("/v1/appliance/jobs/{id}/events", get(events))
        .route("/v1/appliance/jobs/{id}/cancel", post(|Path(id): Path<String>| async move { Json(run(&id)) }))
        .route("/v1/appliance/jobs/{id}/outputs", delete(|| async { Json(json!({"deleted": true})) }))
        .route("/v1/appliance/jobs/{id}/outputs/self-test.json", get(tested))
        .route("/v1/appliance/jobs/{id}/terminal", get(terminal))
        .route("/v1/appliance/promotions", post(promote).get(promotions))
        .layer(DefaultBodyLimit::disable())
        .with_state(seen)
}

fn file(id: &str, bytes: usize, sha256: &str) -> Value {
    json!({
        "id": id, "bytes": bytes, "created_at": 0, "filename": "x.jsonl", "purpose": "fine-tune", "status": "error",
        "status_details": "line 3 is no JSON", "sha256": sha256,
    })
}

/// An agent that is being started again answers nothing for a moment.
fn unless_it_is_gone(seen: &Mutex<Seen>, answer: Value) -> Response {
    let mut seen = seen.lock().unwrap();
    match seen.answers_until.as_mut() {
        Some(0) => {
            seen.answers_until = None;
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")], "it starts").into_response()
        }
        Some(left) => {
            *left -= 1;
            Json(answer).into_response()
        }
        None => Json(answer).into_response(),
    }
}

async fn look_at_file(State(seen): Shared, Path(id): Path<String>) -> Response {
    unless_it_is_gone(&seen, file(&id, 3, ""))
}

async fn look_at_tuning(State(seen): Shared) -> Response {
    unless_it_is_gone(&seen, job())
}

async fn look_at_job(State(seen): Shared, Path(id): Path<String>) -> Response {
    unless_it_is_gone(&seen, run(&id))
}

/// A job that has ended, or one with a terminal, which runs.
fn run(id: &str) -> Value {
    json!({
        "id": id, "kind": "run", "name": "measure", "state": if id == "job-2" { "running" } else { "succeeded" },
        "reason": null, "image": "train", "command": ["x"], "starts": 1, "priority": 0, "gpus": [], "memory": 1,
        "ran_seconds": 1, "created_at": 0,
    })
}

async fn tested() -> Json<Value> {
    let part = |faults: &[&str]| json!({"bytes": 1048576, "passes": 3, "seconds": 0.5, "faults": faults});
    Json(json!({"memory": part(&["word 7 is wrong"]), "disk": part(&[])}))
}

async fn debug(State(seen): Shared, Json(asked): Json<Value>) -> Json<Value> {
    seen.lock().unwrap().wanted.push(asked);
    Json(run("job-2"))
}

/// Says what is typed back, in capitals, until a message ends with `exit`.
async fn terminal(mut request: axum::extract::Request) -> Response {
    assert_eq!(request.headers()[header::UPGRADE], "gap-terminal");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        loop {
            let mut head = [0; 3];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut piece = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut piece).await.unwrap();
            if head[0] == 0 {
                stream.write_all(String::from_utf8_lossy(&piece).to_uppercase().as_bytes()).await.unwrap();
            }
            if piece.ends_with(b"exit\n") {
                return stream.shutdown().await.unwrap();
            }
        }
    });
    let head = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "gap-terminal")];
    (StatusCode::SWITCHING_PROTOCOLS, head).into_response()
}

fn job() -> Value {
    json!({
        "id": "ftjob-1", "model": "base", "status": "failed", "created_at": 0, "training_file": "file-1",
        "error": {"message": "no room"},
    })
}

async fn system(headers: HeaderMap) -> Response {
    let right = format!("Bearer {TOKEN}");
    if headers.get(header::AUTHORIZATION).is_none_or(|token| token.as_bytes() != right.as_bytes()) {
        let said = json!({"error": {"message": "the token is wrong", "type": "authentication_error", "code": "invalid_token"}});
        return (StatusCode::UNAUTHORIZED, Json(said)).into_response();
    }
    Json(json!({"hostname": "rack4", "release": {"name": "demo\u{1b}[2J", "version": "1"}})).into_response()
}

async fn claim(State(seen): Shared, Json(asked): Json<Value>) -> Response {
    seen.lock().unwrap().wanted.push(asked.clone());
    if asked["code"] != CODE {
        let said = json!({"error": {"message": "the code is not the one", "type": "permission_error"}});
        return (StatusCode::FORBIDDEN, Json(said)).into_response();
    }
    Json(json!({"id": "token-1", "token": TOKEN})).into_response()
}

async fn part(State(seen): Shared, mut form: Multipart) -> Response {
    let field = form.next_field().await.unwrap().unwrap();
    assert_eq!(field.name(), Some("data"));
    let bytes = field.bytes().await.unwrap();
    let mut seen = seen.lock().unwrap();
    if seen.breaks_after == Some(seen.parts.len()) {
        return (StatusCode::INSUFFICIENT_STORAGE, Json(json!({"error": {"message": "full"}}))).into_response();
    }
    seen.parts.push(bytes.to_vec());
    Json(json!({"id": format!("part-{}", seen.parts.len())})).into_response()
}

async fn complete(State(seen): Shared, Json(asked): Json<Value>) -> Json<Value> {
    let seen = seen.lock().unwrap();
    let wanted: Vec<String> = (1..=seen.parts.len()).map(|number| format!("part-{number}")).collect();
    assert_eq!(asked["part_ids"], json!(wanted));
    let whole = seen.parts.concat();
    let sum: String = Sha256::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
    Json(json!({"id": "upload-1", "status": "completed", "file": file("file-1", whole.len(), &sum)}))
}

async fn wanted(State(seen): Shared, Json(asked): Json<Value>) -> Json<Value> {
    seen.lock().unwrap().wanted.push(asked);
    Json(job())
}

fn promotion(reason: Option<&str>) -> Value {
    json!({
        "id": "promotion-1", "name": "support", "model": "ft:base:x:1", "evaluation": "job-1",
        "findings": [{"metric": "exact_match", "comparison": ">=", "bound": 0.9, "value": 0.5, "is_met": false}],
        "override_reason": reason, "promoted_by": "ada", "created_at": 0,
    })
}

async fn promote(State(seen): Shared, Json(asked): Json<Value>) -> Response {
    seen.lock().unwrap().wanted.push(asked.clone());
    match asked["override_reason"].as_str() {
        Some(reason) => Json(promotion(Some(reason))).into_response(),
        None => (StatusCode::CONFLICT, Json(json!({"error": {"message": "exact_match is 0.5"}}))).into_response(),
    }
}

async fn promotions() -> Json<Value> {
    Json(json!({"data": [promotion(Some("in a hurry")), promotion(None)], "has_more": false}))
}

async fn events() -> Json<Value> {
    Json(json!({"data": [
        {"id": "e-2", "created_at": 1, "level": "error", "message": "no room"},
        {"id": "e-1", "created_at": 0, "level": "info", "message": "it began"},
    ]}))
}

async fn chat(Json(asked): Json<Value>) -> Response {
    let said = asked["messages"][0]["content"].as_str().unwrap().to_uppercase();
    let event = |text: &str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}));
    Response::new(Body::from(format!("{}{}data: [DONE]\n\n", event(&said), event("!"))))
}

async fn go_on(Json(asked): Json<Value>) -> Response {
    let event = |text: &str| format!("data: {}\n\n", json!({"choices": [{"text": text}]}));
    let prompt = asked["prompt"].as_str().unwrap();
    Response::new(Body::from(format!("{}{}data: [DONE]\n\n", event(prompt), event(" on"))))
}

async fn embed(Json(asked): Json<Value>) -> Json<Value> {
    let vectors = asked["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| json!({"object": "embedding", "embedding": [text.as_str().unwrap().len(), 0.5]}));
    Json(json!({"data": vectors.collect::<Vec<_>>()}))
}
