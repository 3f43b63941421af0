//! What the appliance is, and switching it off.

use super::{Failure, Outcome, Session, show};
use crate::client::Request;
use serde::Deserialize;
use serde_json::Value;

pub fn system(session: &Session) -> Outcome {
    session.show(Request::get(&["v1", "system"]), |system: Value| {
        let text = |pointer: &str| word(system.pointer(pointer));
        show::values(&[
            ("name", text("/hostname")),
            ("status", text("/status")),
            (
                "release",
                format!("{} {} (serial {})", text("/release/name"), text("/release/version"), text("/release/serial")),
            ),
            ("signed by", list(system.pointer("/release/signers"), |signer| word(signer.get("name")))),
            ("trust root", text("/trust/fingerprint")),
            ("secure boot", text("/trust/secure_boot")),
            ("worth", text("/trust/worth")),
            ("certificate", text("/certificate_sha256")),
            ("kernel", text("/kernel/release")),
            ("agent", text("/agent_version")),
            ("gpus", list(system.pointer("/gpus/gpus"), |gpu| word(gpu.get("model")))),
        ]);
        let layers = system.get("layers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let row = |layer: &Value| {
            let size = layer.get("size").and_then(Value::as_u64).unwrap_or(0);
            let text = |key: &str| word(layer.get(key));
            [text("image"), text("name"), show::bytes(size), text("state"), text("digest")]
        };
        show::line("");
        show::table(["IMAGE", "LAYER", "SIZE", "STATE", "DIGEST"], &layers.iter().map(row).collect::<Vec<_>>());
    })
}

/// A value as one word; an empty one where it is not there.
fn word(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn list(value: Option<&Value>, word: impl Fn(&Value) -> String) -> String {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
struct Health {
    status: String,
}

pub fn health(session: &Session) -> Outcome {
    let answer = session.client.ask(Request::get(&["healthz"]))?;
    let health: Health = answer.read()?;
    if session.json {
        session.print(&answer)?;
    } else {
        show::line(show::plain(health.status.clone()));
    }
    if health.status == "ok" {
        return Ok(());
    }
    Err(Failure::failed(format!("the appliance is {}", health.status), "`gapctl system` shows which layer is damaged"))
}

#[derive(Deserialize)]
struct Storage {
    volume: Value,
    free: u64,
    total: u64,
    memory: u64,
    gpus: Vec<String>,
}

pub fn storage(session: &Session) -> Outcome {
    session.show(Request::get(&["v1", "appliance", "storage"]), |storage: Storage| {
        show::values(&[
            ("volume", word(storage.volume.get("kind"))),
            ("device", word(storage.volume.get("device"))),
            ("why", word(storage.volume.get("reason"))),
            ("free", format!("{} of {}", show::bytes(storage.free), show::bytes(storage.total))),
            ("memory for jobs", show::bytes(storage.memory)),
            ("gpus for jobs", storage.gpus.join(", ")),
        ]);
    })
}

pub fn declared(session: &Session) -> Outcome {
    session.show(Request::get(&["v1", "appliance", "declared"]), |declared: Value| {
        let named = |key: &str| list(declared.get(key), |item| word(item.get("name")));
        show::values(&[("models", named("models")), ("data sets", named("datasets"))]);
        let jobs = declared.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let row = |job: &Value| ["name", "kind", "image", "model"].map(|key| word(job.get(key)));
        show::line("");
        show::table(["JOB", "KIND", "IMAGE", "MODEL"], &jobs.iter().map(row).collect::<Vec<_>>());
    })
}

pub fn stop(session: &Session, how: &str, what: &str) -> Outcome {
    session.show(Request::post(&["v1", "system", how]), |_: Value| show::line(what))
}
