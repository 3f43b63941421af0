//! `gapctl diagnose`: what a supporter needs, in one file.

use super::{Failure, Outcome, Session, show};
use crate::client::Request;
use clap::{Args, ValueHint};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What is asked for.
const ASKED: [Asked; 7] = [
    Asked { name: "health.json", path: &["healthz"], kept: Kept::Fields(&["status", "jobs"]) },
    Asked { name: "system.json", path: &["v1", "system"], kept: Kept::Fields(&OF_SYSTEM) },
    Asked { name: "storage.json", path: &["v1", "appliance", "storage"], kept: Kept::Fields(&OF_STORAGE) },
    Asked { name: "declared.json", path: &["v1", "appliance", "declared"], kept: Kept::Lists(&OF_DECLARED) },
    Asked { name: "models.json", path: &["v1", "models"], kept: Kept::Lists(&[("data", &OF_MODEL)]) },
    Asked { name: JOBS, path: &["v1", "appliance", "jobs"], kept: Kept::Lists(&[("data", &OF_JOB)]) },
    // The same in every appliance of this version.
    Asked { name: "openapi.json", path: &["openapi.json"], kept: Kept::Whole },
];
/// The list of jobs.
const JOBS: &str = "jobs.json";
/// Jobs whose events are asked for, the newest.
const MAX_JOBS: usize = 50;
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
/// What is kept of a model: not its name nor its parent's, which hold suffixes and stable names that people chose.
const OF_MODEL: [&str; 4] = ["object", "created", "owned_by", "is_served"];
/// What is kept of the system: not the name of the machine.
const OF_SYSTEM: [&str; 17] = [
    "object",
    "status",
    "agent_version",
    "release",
    "medium",
    "trust",
    "layers",
    "stages",
    "certificate_sha256",
    "network",
    "clock",
    "site",
    "devices",
    "gpus",
    "memory",
    "kernel",
    "modules_locked",
];
/// What is kept of the data volume.
const OF_STORAGE: [&str; 5] = ["volume", "free", "total", "memory", "gpus"];
/// What is kept of what the release declares: not what its jobs run, nor with what parameters.
const OF_DECLARED: [(&str, &[&str]); 3] = [
    ("jobs", &["name", "kind", "image", "engine", "gpus", "model", "datasets", "length", "concurrency", "endpoints"]),
    ("models", &["name", "image"]),
    ("datasets", &["name", "image"]),
];
/// Fields that never go into a bundle, wherever they stand: what people wrote, and what only they should know.
const LEFT_OUT: [&str; 10] =
    ["env", "metadata", "file", "filename", "token", "message", "command", "parameters", "asked", "reason"];
/// Where keys stand with the names of those who hold them.
const SIGNERS: &str = "signers";
/// What is kept of one who signed.
const OF_SIGNER: [&str; 2] = ["key", "roles"];

/// A document of the bundle.
struct Asked {
    /// Its name there.
    name: &'static str,
    /// Its path in the API.
    path: &'static [&'static str],
    kept: Kept,
}

/// What of a document goes into the bundle. Whatever a later appliance adds does not.
enum Kept {
    /// All of it.
    Whole,
    /// These fields.
    Fields(&'static [&'static str]),
    /// Of each item of these lists these fields.
    Lists(&'static [(&'static str, &'static [&'static str])]),
}

/// Where the bundle goes.
#[derive(Debug, Args)]
pub struct Diagnose {
    /// The file to write, a .tar.gz
    #[arg(long, short, default_value = "diagnosis.tar.gz", value_hint = ValueHint::FilePath)]
    output: PathBuf,
}

pub fn diagnose(session: &Session, args: &Diagnose) -> Outcome {
    let mut members = Vec::new();
    for asked in ASKED {
        let query = if asked.name == JOBS { vec![("limit", Some(MAX_JOBS.to_string()))] } else { Vec::new() };
        members.push((asked.name.to_owned(), look(session, Request::get(asked.path).query(&query), &asked.kept)));
    }
    let jobs = members.iter().find(|(name, _)| name == JOBS).and_then(|(_, jobs)| jobs.get("data")?.as_array());
    let ids: Vec<String> =
        jobs.into_iter().flatten().filter_map(|job| job.get("id")?.as_str().map(str::to_owned)).collect();
    for id in ids {
        let request =
            Request::get(&["v1", "appliance", "jobs", &id, "events"]).query(&[("limit", Some("100".to_owned()))]);
        members.push((format!("events/{id}.json"), look(session, request, &Kept::Lists(&[("data", &OF_EVENT)]))));
    }
    write(&args.output, &members).map_err(|error| {
        Failure::could_not(
            format!("writing {}: {error}", args.output.display()),
            "is there room, and may it be written?",
        )
    })?;
    show::line(format!(
        "{}: {} documents, without examples, logs, names of files and words of people",
        args.output.display(),
        members.len()
    ));
    Ok(())
}

/// What the appliance answers; where it does not, why: that is part of the diagnosis.
fn look(session: &Session, request: Request, kept: &Kept) -> Value {
    let answer = session.client.ask(request).and_then(|answer| answer.read::<Value>());
    answer.map_or_else(|error| json!({"unanswered": error.to_string()}), |answer| keep(answer, kept))
}

fn keep(mut answer: Value, kept: &Kept) -> Value {
    match kept {
        Kept::Whole => return answer,
        Kept::Fields(fields) => only(&mut answer, fields),
        Kept::Lists(lists) => {
            let names: Vec<&str> = lists.iter().map(|(name, _)| *name).collect();
            only(&mut answer, &names);
            for (name, fields) in *lists {
                let items = answer.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
                items.for_each(|item| only(item, fields));
            }
        }
    }
    strip(&mut answer);
    answer
}

/// Keeps these fields of an object, and nothing of what is none.
fn only(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(map) => map.retain(|name, _| fields.contains(&name.as_str())),
        other => *other = Value::Null,
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if LEFT_OUT.contains(&name.as_str()) && !value.is_null() {
                    *value = json!("(left out)");
                }
                if name == SIGNERS {
                    value.as_array_mut().into_iter().flatten().for_each(|signer| only(signer, &OF_SIGNER));
                }
                strip(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
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

    fn kept(name: &str, answer: Value) -> Value {
        keep(answer, &ASKED.into_iter().find(|asked| asked.name == name).unwrap().kept)
    }

    #[test]
    fn of_jobs_and_events_only_what_is_known_to_be_harmless_is_kept() {
        let events = json!({"data": [{"id": "event-1", "level": "info", "message": "secret",
            "data": {"sample": "a patient's name"}, "later": "secret"}]});
        let events = keep(events, &Kept::Lists(&[("data", &OF_EVENT)]));
        assert_eq!(events, json!({"data": [{"id": "event-1", "level": "info"}]}));
        let jobs = json!({"later": "secret", "data": [{"id": "job-1", "name": "ft:base:my-secret:1", "state": "failed",
            "command": ["x", "secret"], "reason": "secret", "needs": ["job-0"]}]});
        assert_eq!(kept(JOBS, jobs), json!({"data": [{"id": "job-1", "state": "failed"}]}));
    }

    #[test]
    fn names_of_models_that_people_chose_are_not_kept() {
        let models = json!({"object": "list", "data": [
            {"id": "base:my-secret-1", "object": "model", "created": 1, "owned_by": "job-1", "parent": "base", "is_served": true},
            {"id": "secret-alias", "object": "model", "created": 2, "owned_by": "promotion-1", "parent": "base:my-secret-1",
             "is_served": false},
        ]});
        let kept = kept("models.json", models);
        assert_eq!(kept["data"][0], json!({"object": "model", "created": 1, "owned_by": "job-1", "is_served": true}));
        assert!(!kept.to_string().contains("secret"), "{kept}");
    }

    #[test]
    fn of_the_system_the_machine_is_kept_and_not_what_people_call_it() {
        let system = json!({
            "status": "ok", "hostname": "secret", "medium": {"device": "/dev/sda", "file": "/secret.gap"},
            "release": {"name": "demo", "signers": [{"name": "secret", "key": "k1", "roles": ["release"]}]},
            "site": {"signers": [{"name": "secret", "key": "k2", "roles": []}], "endpoints": {"tracking": "192.0.2.9:5000"}},
        });
        let kept = kept("system.json", system);
        assert!(!kept.to_string().contains("secret"), "{kept}");
        assert_eq!(kept["release"]["signers"][0], json!({"key": "k1", "roles": ["release"]}));
        assert_eq!(
            (&kept["medium"]["device"], &kept["site"]["endpoints"]["tracking"]),
            (&"/dev/sda".into(), &"192.0.2.9:5000".into())
        );
    }

    #[test]
    fn of_declared_jobs_neither_commands_nor_parameters_are_kept() {
        let declared = json!({
            "version": 1,
            "jobs": [{"name": "train", "kind": "train", "run": ["/bin/x", "secret"], "parameters": {"type": "secret"}}],
            "models": [{"name": "base", "image": "models", "path": "/secret"}],
        });
        let wanted = json!({
            "jobs": [{"name": "train", "kind": "train"}], "models": [{"name": "base", "image": "models"}],
        });
        assert_eq!(kept("declared.json", declared), wanted);
        let storage = json!({"volume": {"kind": "memory", "reason": "secret"}, "free": 1, "later": "secret"});
        let wanted = json!({"volume": {"kind": "memory", "reason": "(left out)"}, "free": 1});
        assert_eq!(kept("storage.json", storage), wanted);
    }
}
