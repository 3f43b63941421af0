//! `gapctl diagnose`: what a supporter needs, in one file.

use super::{Failure, Outcome, Session};
use crate::client::Request;
use clap::{Args, ValueHint};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What is asked for: the name in the bundle, and the path.
const ASKED: [(&str, &[&str]); 7] = [
    ("health.json", &["healthz"]),
    ("system.json", &["v1", "system"]),
    ("storage.json", &["v1", "appliance", "storage"]),
    ("declared.json", &["v1", "appliance", "declared"]),
    ("models.json", &["v1", "models"]),
    ("jobs.json", &["v1", "appliance", "jobs"]),
    ("openapi.json", &["openapi.json"]),
];
/// Jobs whose events are asked for, the newest.
const JOBS: usize = 50;
/// What is kept of an event: the rest is words and numbers of a job's program, which may be anything.
const OF_EVENT: [&str; 5] = ["id", "object", "created_at", "level", "type"];
/// What is kept of a job: not its name, which people chose, nor what it runs.
const OF_JOB: [&str; 16] = [
    "id",
    "object",
    "kind",
    "declared",
    "image",
    "state",
    "is_ready",
    "starts",
    "priority",
    "gpus",
    "memory",
    "ran_seconds",
    "time_limit_seconds",
    "created_at",
    "started_at",
    "finished_at",
];
/// Fields that never go into a bundle, wherever they stand: what people wrote, and what only they should know.
const LEFT_OUT: [&str; 9] =
    ["env", "metadata", "filename", "token", "message", "command", "parameters", "asked", "reason"];

/// Where the bundle goes.
#[derive(Debug, Args)]
pub struct Diagnose {
    /// The file to write, a .tar.gz
    #[arg(long, short, default_value = "diagnosis.tar.gz", value_hint = ValueHint::FilePath)]
    output: PathBuf,
}

pub fn diagnose(session: &Session, args: &Diagnose) -> Outcome {
    let mut members = Vec::new();
    for (name, path) in ASKED {
        let query = if name == "jobs.json" { vec![("limit", Some(JOBS.to_string()))] } else { Vec::new() };
        let mut answer = look(session, Request::get(path).query(&query));
        if name == "jobs.json" {
            keep(&mut answer, &OF_JOB);
        }
        members.push((name.to_owned(), answer));
    }
    let jobs = members.iter().find(|(name, _)| name == "jobs.json").and_then(|(_, jobs)| jobs.get("data")?.as_array());
    let ids: Vec<String> =
        jobs.into_iter().flatten().filter_map(|job| job.get("id")?.as_str().map(str::to_owned)).collect();
    for id in ids {
        let request =
            Request::get(&["v1", "appliance", "jobs", &id, "events"]).query(&[("limit", Some("100".to_owned()))]);
        let mut events = look(session, request);
        keep(&mut events, &OF_EVENT);
        members.push((format!("events/{id}.json"), events));
    }
    write(&args.output, &members).map_err(|error| {
        Failure::could_not(
            format!("writing {}: {error}", args.output.display()),
            "is there room, and may it be written?",
        )
    })?;
    println!(
        "{}: {} documents, without examples, logs, names of files and words of people",
        args.output.display(),
        members.len()
    );
    Ok(())
}

/// What the appliance answers; where it does not, why: that is part of the diagnosis.
fn look(session: &Session, request: Request) -> Value {
    let answer = session.client.ask(request).and_then(|answer| answer.read::<Value>());
    let mut value = answer.unwrap_or_else(|error| json!({"unanswered": error.to_string()}));
    strip(&mut value);
    value
}

/// Keeps these fields of each item of a list, and nothing else.
fn keep(list: &mut Value, fields: &[&str]) {
    let items = list.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten();
    for item in items.filter_map(Value::as_object_mut) {
        item.retain(|name, _| fields.contains(&name.as_str()));
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                // The same words name parts of the API's own description, whose values are no texts.
                if LEFT_OUT.contains(&name.as_str()) && !matches!(value, Value::Null) && !is_schema(value) {
                    *value = json!("(left out)");
                } else {
                    strip(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Whether this is a schema or a parameter of the OpenAPI document.
fn is_schema(value: &Value) -> bool {
    let is_part =
        |value: &Value| ["type", "$ref", "schema", "anyOf", "allOf"].iter().any(|key| value.get(key).is_some());
    is_part(value) || value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_part))
}

fn write(path: &Path, members: &[(String, Value)]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let mut bundle = tar::Builder::new(GzBuilder::new().write(&mut file, Compression::default()));
    for (name, value) in members {
        let bytes = serde_json::to_vec_pretty(value)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        bundle.append_data(&mut header, format!("diagnosis/{name}"), bytes.as_slice())?;
    }
    bundle.into_inner()?.finish()?.flush()?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_jobs_and_events_only_what_is_known_to_be_harmless_is_kept() {
        let mut events = json!({"data": [{"id": "event-1", "level": "info", "message": "(left out)",
            "data": {"sample": "a patient's name"}, "later": "secret"}]});
        keep(&mut events, &OF_EVENT);
        assert_eq!(events, json!({"data": [{"id": "event-1", "level": "info"}]}));
        let mut jobs =
            json!({"data": [{"id": "job-1", "name": "ft:base:my-secret:1", "state": "failed", "needs": ["job-0"]}]});
        keep(&mut jobs, &OF_JOB);
        assert_eq!(jobs, json!({"data": [{"id": "job-1", "state": "failed"}]}));
        let mut unanswered = json!({"unanswered": "refused"});
        keep(&mut unanswered, &OF_JOB);
        assert_eq!(unanswered, json!({"unanswered": "refused"}));
    }

    #[test]
    fn nothing_that_people_wrote_is_in_a_bundle() {
        let mut value = json!({
            "data": [{"id": "job-1", "command": ["x", "secret"], "env": {"A": "secret"}, "reason": "secret", "state": "failed"}],
            "schema": {"properties": {"message": {"type": "string"}}},
        });
        strip(&mut value);
        let text = value.to_string();
        assert!(!text.contains("secret") && text.contains("job-1") && text.contains("\"type\":\"string\""), "{text}");
    }
}
