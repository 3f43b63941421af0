//! `gapctl finetune`.

use super::{
    Failure, Outcome, Session,
    file::{self, List, Page},
    job, show,
};
use crate::client::Request;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The resource.
const JOBS: [&str; 3] = ["v1", "fine_tuning", "jobs"];

/// What is done with fine-tuning jobs.
#[derive(Debug, Subcommand)]
pub enum FinetuneCommand {
    /// Train a model on a file
    #[command(after_help = "Examples:\n  gapctl finetune create my-model examples.jsonl --epochs 3 --wait\n  \
                            gapctl finetune create my-model file-… --set lora.r=16 --set learning_rate=2e-4")]
    Create(Box<Create>),
    /// List them, the newest first
    List(Page),
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Show what happened to it
    Events {
        /// Its id
        id: String,
        /// Go on until it has ended; exits with 4 when it failed
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        page: Page,
    },
    /// List its checkpoints; `job download` fetches their files, while it runs as well
    Checkpoints {
        /// Its id
        id: String,
    },
    /// Wait until it has ended; exits with 4 when it failed
    Wait {
        /// Its id
        id: String,
    },
    /// Stop it for good
    Cancel {
        /// Its id
        id: String,
    },
    /// Write a checkpoint, stop, and give its place to others
    Pause {
        /// Its id
        id: String,
    },
    /// Go on from its checkpoint
    Resume {
        /// Its id
        id: String,
    },
}

/// A job to create.
#[derive(Debug, Args)]
pub struct Create {
    /// A model of the release, or one that was fine-tuned here
    model: String,
    /// Examples: the id of a file, `dataset:NAME`, or a path, which is sent first
    training: String,
    /// Examples that are only measured on, in the same ways
    #[arg(long, value_name = "FILE")]
    validation: Option<String>,
    /// Part of the new model's name
    #[arg(long)]
    suffix: Option<String>,
    /// How often it goes through all examples
    #[arg(long)]
    epochs: Option<u64>,
    /// Examples of a step
    #[arg(long)]
    batch_size: Option<u64>,
    /// Everything random follows from it
    #[arg(long)]
    seed: Option<u64>,
    /// Prefer the chosen answers of pairs to the rejected ones
    #[arg(long)]
    dpo: bool,
    /// A field of job.json (docs/jobs.md): `max_steps=20`, `lora.r=16`
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    parameters: Vec<String>,
    /// The declared job, where there are several for this model
    #[arg(long)]
    job: Option<String>,
    #[command(flatten)]
    wishes: job::Wishes,
    /// Show its events until it has ended; exits with 4 when it failed
    #[arg(long, short)]
    wait: bool,
}

/// A fine-tuning job.
#[derive(Debug, Clone, Deserialize)]
struct FineTuning {
    id: String,
    model: String,
    status: String,
    created_at: i64,
    finished_at: Option<i64>,
    fine_tuned_model: Option<String>,
    training_file: String,
    validation_file: Option<String>,
    trained_tokens: Option<u64>,
    error: Option<Told>,
}

#[derive(Debug, Clone, Deserialize)]
struct Told {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Checkpoint {
    created_at: i64,
    step_number: u64,
    fine_tuned_model_checkpoint: String,
    metrics: Value,
}

impl FineTuning {
    fn show(self) {
        show::values(&[
            ("id", self.id),
            ("status", self.status),
            ("model", self.model),
            ("makes", self.fine_tuned_model.unwrap_or_default()),
            ("examples", self.training_file),
            ("measured on", self.validation_file.unwrap_or_default()),
            ("created", show::time(self.created_at)),
            ("finished", self.finished_at.map(show::time).unwrap_or_default()),
            ("trained tokens", self.trained_tokens.map(|count| count.to_string()).unwrap_or_default()),
            ("error", self.error.map(|error| error.message).unwrap_or_default()),
        ]);
    }

    fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

fn path<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    JOBS.iter().copied().chain(rest.iter().copied()).collect()
}

pub fn run(session: &Session, command: FinetuneCommand) -> Outcome {
    match command {
        FinetuneCommand::Create(create) => self::create(session, &create),
        FinetuneCommand::List(page) => {
            session.show(Request::get(&JOBS).query(&page.query()), |list: List<FineTuning>| {
                let row = |job: &FineTuning| {
                    let job = job.clone();
                    [
                        job.id,
                        job.status,
                        job.model,
                        job.fine_tuned_model.unwrap_or_default(),
                        show::time(job.created_at),
                    ]
                };
                let rows: Vec<_> = list.data.iter().map(row).collect();
                show::table(["ID", "STATUS", "MODEL", "MAKES", "CREATED"], &rows);
                list.tell_rest(list.data.last().map(|job| job.id.as_str()));
            })
        }
        FinetuneCommand::Show { id } => session.show(Request::get(&path(&[&id])), FineTuning::show),
        FinetuneCommand::Events { id, follow: true, .. } => follow(session, &id),
        FinetuneCommand::Events { id, follow: false, page } => job::events(session, &path(&[&id, "events"]), &page),
        FinetuneCommand::Checkpoints { id } => {
            session.show(Request::get(&path(&[&id, "checkpoints"])), |list: List<Checkpoint>| {
                let row = |checkpoint: &Checkpoint| {
                    let loss = checkpoint.metrics.get("train_loss").map(Value::to_string).unwrap_or_default();
                    let written = show::time(checkpoint.created_at);
                    [checkpoint.step_number.to_string(), loss, written, checkpoint.fine_tuned_model_checkpoint.clone()]
                };
                show::table(["STEP", "LOSS", "WRITTEN", "FILES"], &list.data.iter().map(row).collect::<Vec<_>>());
            })
        }
        FinetuneCommand::Wait { id } => follow(session, &id),
        FinetuneCommand::Cancel { id } => session.show(Request::post(&path(&[&id, "cancel"])), FineTuning::show),
        FinetuneCommand::Pause { id } => session.show(Request::post(&path(&[&id, "pause"])), FineTuning::show),
        FinetuneCommand::Resume { id } => session.show(Request::post(&path(&[&id, "resume"])), FineTuning::show),
    }
}

fn create(session: &Session, create: &Create) -> Outcome {
    let mut parameters = Map::new();
    for parameter in &create.parameters {
        set(&mut parameters, parameter)?;
    }
    let mut hyperparameters = Map::new();
    for (name, value) in [("n_epochs", create.epochs), ("batch_size", create.batch_size)] {
        if let Some(value) = value {
            hyperparameters.insert(name.to_owned(), json!(value));
        }
    }
    let training = file::settle(session, &create.training)?;
    let validation = create.validation.as_deref().map(|named| file::settle(session, named)).transpose()?;
    let kind = if create.dpo { "dpo" } else { "supervised" };
    let mut vendor = create.wishes.to_map();
    vendor.insert("parameters".to_owned(), parameters.into());
    if let Some(job) = &create.job {
        vendor.insert("job".to_owned(), json!(job));
    }
    let wanted = json!({
        "model": create.model,
        "training_file": training,
        "validation_file": validation,
        "suffix": create.suffix,
        "seed": create.seed,
        "method": {"type": kind, kind: {"hyperparameters": hyperparameters}},
        "appliance": vendor,
    });
    let request = Request::post_json(&JOBS, &wanted)?;
    if !create.wait {
        return session.show(request, FineTuning::show);
    }
    let job: FineTuning = session.read(request)?;
    follow(session, &job.id)
}

/// Sets `a.b=value` in nested maps. What is no JSON is a text.
fn set(map: &mut Map<String, Value>, parameter: &str) -> Result<(), Failure> {
    let wrong = || Failure::usage(format!("`{parameter}` sets nothing"), "write FIELD=VALUE, such as lora.r=16");
    let (field, value) = parameter.split_once('=').ok_or_else(wrong)?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let mut names: Vec<&str> = field.split('.').collect();
    let last = names.pop().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    let mut place = map;
    for name in names {
        let inner = place.entry(name).or_insert_with(|| Value::Object(Map::new()));
        place = inner.as_object_mut().ok_or_else(wrong)?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// Shows events as they come, until the job has ended, and the job then.
fn follow(session: &Session, id: &str) -> Outcome {
    let mut shown = BTreeSet::new();
    let ended = loop {
        // Asked before the events are, so that none is missed between the two.
        let answer = session.ask_patiently(&Request::get(&path(&[id])))?;
        let job: FineTuning = answer.read()?;
        if !session.json {
            job::show_new_events(session, &path(&[id, "events"]), &mut shown)?;
        }
        if job.has_ended() {
            session.show_answer(&answer, FineTuning::show)?;
            break job;
        }
        std::thread::sleep(file::PAUSE);
    };
    if ended.status == "succeeded" {
        return Ok(());
    }
    let reason = ended.error.map(|error| format!(": {}", error.message)).unwrap_or_default();
    Err(Failure::failed(
        format!("the job {}{reason}", ended.status),
        &format!("`gapctl job log {id}` shows what it printed"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_at_any_depth_as_what_they_are() {
        let mut map = Map::new();
        for parameter in ["lora.r=16", "lora.use_rslora=true", "lr_scheduler_type=cosine", "learning_rate=2e-4"] {
            set(&mut map, parameter).unwrap();
        }
        let wanted = json!({
            "lora": {"r": 16, "use_rslora": true}, "lr_scheduler_type": "cosine", "learning_rate": 2e-4,
        });
        assert_eq!(Value::Object(map.clone()), wanted);
        for bad in ["x", "=1", "lora.r.x=1"] {
            assert!(set(&mut map, bad).is_err(), "{bad}");
        }
    }
}
