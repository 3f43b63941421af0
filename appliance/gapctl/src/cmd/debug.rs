//! `gapctl debug`: a terminal inside of an image of the appliance.

use super::{Failure, Outcome, Session, job, show};
use crate::{
    client::{ClientError, Request},
    terminal::{self, Raw},
};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long it may take until the job has started.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(500);

/// Which terminal.
#[derive(Debug, Args)]
pub struct Debug {
    /// The image, by its name in the recipe
    image: String,
    /// Minutes after which it is ended, 60 at most
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    minutes: u64,
    /// A model that it sees in /run/job/model
    #[arg(long)]
    model: Option<String>,
    /// GPUs
    #[arg(long)]
    gpus: Option<u32>,
    /// Memory, in bytes
    #[arg(long)]
    memory: Option<u64>,
    /// Program and arguments; the image's shell when absent
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    state: String,
    reason: Option<String>,
}

pub fn debug(session: &Session, args: &Debug) -> Outcome {
    let order = json!({
        "image": args.image,
        "command": args.command,
        "model": args.model,
        "term": std::env::var("TERM").ok().filter(|term| !term.is_empty()),
        "gpus": args.gpus,
        "memory": args.memory,
        "time_limit_seconds": args.minutes * 60,
    });
    let job: Job = session.read(Request::post_json(&["v1", "appliance", "debug"], &order)?)?;
    eprintln!("{}: waiting for its turn", show::plain(job.id.clone()));
    let worked = started(session, &job.id).and_then(|()| work(session, &job.id));
    // Whatever happened here, nothing of it goes on there.
    let cancelled = session.client.ask(Request::post(&[&job::JOBS[..], &[&job.id, "cancel"]].concat()));
    worked?;
    match cancelled {
        Ok(_) | Err(ClientError::Refused { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn started(session: &Session, id: &str) -> Outcome {
    let until = Instant::now() + PATIENCE;
    loop {
        let job: Job = session.read(Request::get(&[&job::JOBS[..], &[id]].concat()))?;
        match job.state.as_str() {
            "running" => return Ok(()),
            "queued" if Instant::now() < until => thread::sleep(PAUSE),
            state => {
                let reason = job.reason.unwrap_or_else(|| format!("it is {state}"));
                return Err(Failure::failed(
                    format!("the terminal {id} does not open: {reason}"),
                    "`gapctl job list` shows what runs, `gapctl job log` what it printed",
                ));
            }
        }
    }
}

fn work(session: &Session, id: &str) -> Outcome {
    let path = [&job::JOBS[..], &[id, "terminal"]].concat();
    eprintln!("connected; it ends with its program (exit, or Ctrl-D)");
    let raw = Raw::enter().map_err(|error| Failure::could_not(format!("this terminal: {error}"), "is it one?"))?;
    let ended = session.client.upgrade(Request::get(&path), terminal::PROTOCOL, terminal::relay);
    drop(raw);
    ended?;
    Ok(())
}
