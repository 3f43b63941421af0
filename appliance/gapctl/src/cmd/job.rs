//! `gapctl job`: jobs of every kind.

use super::{
    Failure, Outcome, Session,
    file::{self, Destination, List, PAUSE, Page},
    lines::Lines,
    show,
};
use crate::client::Request;
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, ops::ControlFlow, thread, time::Duration};

/// The resource.
pub const JOBS: [&str; 3] = ["v1", "appliance", "jobs"];
/// Longest silence of a log that is followed.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// What is done with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Start a declared job
    #[command(after_help = "Examples:\n  gapctl job create eval --job measure --file held-out.jsonl --wait\n  \
                            gapctl job create run --job convert")]
    Create(Box<Create>),
    /// List them, the newest first
    List {
        /// Only of this kind: train, eval, serve, run
        #[arg(long)]
        kind: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Show what it printed
    Log {
        /// Its id
        id: String,
        /// Go on until it has ended
        #[arg(long, short)]
        follow: bool,
        /// Only lines that hold this text
        #[arg(long)]
        search: Option<String>,
        /// From its beginning instead of its last lines
        #[arg(long)]
        all: bool,
    },
    /// Show what happened to it
    Events {
        /// Its id
        id: String,
        #[command(flatten)]
        page: Page,
    },
    /// Print what each step measured, one JSON object a line
    Metrics {
        /// Its id
        id: String,
    },
    /// List the files that it left behind, while it runs as well
    Outputs {
        /// Its id
        id: String,
    },
    /// Fetch one of them
    Download {
        /// Its id
        id: String,
        /// The file, as `outputs` lists it
        path: String,
        #[command(flatten)]
        to: Destination,
    },
    /// Wait until it has ended, or answers where it serves; exits with 4 when it failed
    Wait {
        /// Its id
        id: String,
    },
    /// Stop it for good
    Cancel {
        /// Its id
        id: String,
    },
    /// Let it write a checkpoint, stop, and give its place to others
    Pause {
        /// Its id
        id: String,
    },
    /// Let it go on
    Resume {
        /// Its id
        id: String,
    },
}

/// What a job is for. Training goes by `finetune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Measures
    Eval,
    /// Serves a model
    Serve,
    /// Anything that ends by itself
    Run,
}

/// How a job is queued and placed.
#[derive(Debug, Clone, Default, Args)]
pub struct Wishes {
    /// GPUs
    #[arg(long)]
    gpus: Option<u32>,
    /// Memory of each of them, in bytes
    #[arg(long)]
    gpu_memory: Option<u64>,
    /// Memory of the machine, in bytes
    #[arg(long)]
    memory: Option<u64>,
    /// -100 to 100; higher ones start first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Attempts in all
    #[arg(long)]
    attempts: Option<u32>,
    /// Longest time that it may run, in seconds
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// A job that must have succeeded before
    #[arg(long, value_name = "ID")]
    needs: Vec<String>,
}

impl Wishes {
    /// Those that were said, by the names of the API.
    pub fn to_map(&self) -> Map<String, Value> {
        let said = [
            ("gpus", json!(self.gpus)),
            ("gpu_memory", json!(self.gpu_memory)),
            ("memory", json!(self.memory)),
            ("priority", json!(self.priority)),
            ("attempts", json!(self.attempts)),
            ("time_limit_seconds", json!(self.time_limit)),
            ("needs", json!(self.needs)),
        ];
        said.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A job to create.
#[derive(Debug, Args)]
pub struct Create {
    kind: Kind,
    /// The declared job, by its name in the recipe
    #[arg(long)]
    job: Option<String>,
    /// The model that it works on
    #[arg(long)]
    model: Option<String>,
    /// A file for it: an id, `dataset:NAME`, or a path, which is sent first
    #[arg(long)]
    file: Option<String>,
    /// A variable besides those of the image
    #[arg(long = "env", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    #[command(flatten)]
    wishes: Wishes,
    /// Wait until it has ended, or answers where it serves; exits with 4 when it failed
    #[arg(long, short)]
    wait: bool,
}

/// Starts after which a server that does not answer is given up.
const HOPELESS: u32 = 4;

/// A job.
#[derive(Debug, Clone, Deserialize)]
struct Job {
    id: String,
    kind: String,
    name: String,
    state: String,
    is_ready: Option<bool>,
    reason: Option<String>,
    waits_for: Option<String>,
    image: String,
    command: Vec<String>,
    starts: u32,
    priority: i32,
    gpus: Vec<String>,
    memory: u64,
    ran_seconds: u64,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl Job {
    fn show(self) {
        let ready = self.is_ready.map(|is_ready| if is_ready { "yes" } else { "not yet" }.to_owned());
        show::values(&[
            ("id", self.id),
            ("kind", self.kind),
            ("name", self.name),
            ("state", self.state),
            ("answers", ready.unwrap_or_default()),
            ("reason", self.reason.unwrap_or_default()),
            ("waits for", self.waits_for.unwrap_or_default()),
            ("image", self.image),
            ("command", self.command.join(" ")),
            ("starts", self.starts.to_string()),
            ("priority", self.priority.to_string()),
            ("gpus", self.gpus.join(", ")),
            ("memory", show::bytes(self.memory)),
            ("ran", format!("{} s", self.ran_seconds)),
            ("created", show::time(self.created_at)),
            ("started", self.started_at.map(show::time).unwrap_or_default()),
            ("finished", self.finished_at.map(show::time).unwrap_or_default()),
        ]);
    }

    /// A server is started again without end: after a few times more waiting helps nobody.
    fn keeps_failing(&self) -> bool {
        self.kind == "serve" && self.starts >= HOPELESS && self.reason.is_some()
    }

    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    created_at: i64,
    level: String,
    message: String,
}

impl Event {
    fn show(&self) {
        let level = if self.level == "info" { String::new() } else { format!("{}: ", self.level) };
        show::line(format!("{}  {}", show::time(self.created_at), show::plain(format!("{level}{}", self.message))));
    }
}

#[derive(Debug, Deserialize)]
struct Output {
    path: String,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Line {
    text: String,
}

#[derive(Debug, Deserialize)]
struct LogPage {
    lines: Vec<Line>,
    next: u64,
}

fn path<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    JOBS.iter().copied().chain(rest.iter().copied()).collect()
}

pub fn run(session: &Session, command: JobCommand) -> Outcome {
    match command {
        JobCommand::Create(create) => self::create(session, &create),
        JobCommand::List { kind, state, page } => list(session, kind, state, &page),
        JobCommand::Show { id } => session.show(Request::get(&path(&[&id])), Job::show),
        JobCommand::Log { id, follow: true, search, all } => follow_log(session, &id, search, all),
        JobCommand::Log { id, follow: false, search, all } => log(session, &id, search.as_deref(), all),
        JobCommand::Events { id, page } => events(session, &path(&[&id, "events"]), &page),
        JobCommand::Metrics { id } => session.print(&session.client.ask(Request::get(&path(&[&id, "metrics"])))?),
        JobCommand::Outputs { id } => session.show(Request::get(&path(&[&id, "outputs"])), |list: List<Output>| {
            let row = |output: &Output| [show::bytes(output.bytes), output.path.clone()];
            show::table(["SIZE", "PATH"], &list.data.iter().map(row).collect::<Vec<_>>());
        }),
        JobCommand::Download { id, path: file, to } => {
            // Each part of the path is escaped by itself.
            let parts: Vec<&str> = [id.as_str(), "outputs"].into_iter().chain(file.split('/')).collect();
            file::download(session, Request::get(&path(&parts)), &to)
        }
        JobCommand::Wait { id } => wait(session, &id),
        JobCommand::Cancel { id } => session.show(Request::post(&path(&[&id, "cancel"])), Job::show),
        JobCommand::Pause { id } => session.show(Request::post(&path(&[&id, "pause"])), Job::show),
        JobCommand::Resume { id } => session.show(Request::post(&path(&[&id, "resume"])), Job::show),
    }
}

fn create(session: &Session, create: &Create) -> Outcome {
    let mut variables = Map::new();
    for variable in &create.variables {
        let wrong = || Failure::usage(format!("`{variable}` sets nothing"), "write NAME=VALUE");
        let (name, value) = variable.split_once('=').ok_or_else(wrong)?;
        variables.insert(name.to_owned(), json!(value));
    }
    let file = create.file.as_deref().map(|named| file::settle(session, named)).transpose()?;
    let kind = match create.kind {
        Kind::Eval => "eval",
        Kind::Serve => "serve",
        Kind::Run => "run",
    };
    let mut wanted = create.wishes.to_map();
    wanted.insert("kind".to_owned(), json!(kind));
    wanted.insert("env".to_owned(), variables.into());
    for (name, value) in [("job", &create.job), ("model", &create.model), ("file", &file)] {
        if let Some(value) = value {
            wanted.insert(name.to_owned(), json!(value));
        }
    }
    start(session, &wanted.into(), create.wait)
}

/// Submits a job, and waits for it where that is wanted.
pub fn start(session: &Session, wanted: &Value, waits: bool) -> Outcome {
    let request = Request::post_json(&JOBS, wanted)?;
    if !waits {
        return session.show(request, Job::show);
    }
    let job: Job = session.read(request)?;
    wait(session, &job.id)
}

fn list(session: &Session, kind: Option<String>, state: Option<String>, page: &Page) -> Outcome {
    let [limit, after] = page.query();
    let request = Request::get(&JOBS).query(&[("kind", kind), ("state", state), limit, after]);
    session.show(request, |list: List<Job>| {
        let row = |job: &Job| {
            let job = job.clone();
            [job.id, job.kind, job.state, show::time(job.created_at), job.name]
        };
        show::table(["ID", "KIND", "STATE", "CREATED", "NAME"], &list.data.iter().map(row).collect::<Vec<_>>());
        list.tell_rest(list.data.last().map(|job| job.id.as_str()));
    })
}

/// Shows a page of events, the oldest first.
pub fn events(session: &Session, path: &[&str], page: &Page) -> Outcome {
    session.show(Request::get(path).query(&page.query()), |list: List<Event>| {
        list.data.iter().rev().for_each(Event::show);
    })
}

/// Shows the events that are not in `shown` yet.
pub fn show_new_events(session: &Session, path: &[&str], shown: &mut BTreeSet<String>) -> Outcome {
    let request = Request::get(path).query(&[("limit", Some("100".to_owned()))]);
    let list: List<Event> = session.read_patiently(&request)?;
    for event in list.data.iter().rev() {
        if shown.insert(event.id.clone()) {
            event.show();
        }
    }
    Ok(())
}

fn log(session: &Session, id: &str, search: Option<&str>, all: bool) -> Outcome {
    let mut after = all.then_some(0);
    loop {
        let query = [("after", after.map(|after: u64| after.to_string())), ("search", search.map(str::to_owned))];
        let answer = session.client.ask(Request::get(&path(&[id, "log"])).query(&query))?;
        let page: LogPage = answer.read()?;
        if session.json {
            session.print(&answer)?;
        } else {
            page.lines.iter().for_each(|line| show::line(show::plain(line.text.clone())));
        }
        // The last page stays where it is.
        if after == Some(page.next) || page.lines.is_empty() {
            return Ok(());
        }
        after = Some(page.next);
    }
}

fn follow_log(session: &Session, id: &str, search: Option<String>, all: bool) -> Outcome {
    let query = [("follow", Some("true".to_owned())), ("search", search), ("after", all.then(|| "0".to_owned()))];
    let request = Request::get(&path(&[id, "log"])).query(&query).patience(QUIET);
    let (mut lines, mut failed) = (Lines::default(), None);
    session.client.stream(request, |piece| {
        let pushed = lines.push(piece, |line| {
            let text = String::from_utf8_lossy(line);
            match serde_json::from_str::<Line>(&text) {
                _ if session.json => show::text(&text),
                Ok(line) => show::line(show::plain(line.text)),
                Err(_) => show::text(&show::plain_lines(&text)),
            }
            ControlFlow::Continue(())
        });
        pushed.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn wait(session: &Session, id: &str) -> Outcome {
    let mut shown = BTreeSet::new();
    let job = loop {
        let answer = session.ask_patiently(&Request::get(&path(&[id])))?;
        let job: Job = answer.read()?;
        if !session.json {
            show_new_events(session, &path(&[id, "events"]), &mut shown)?;
        }
        if job.has_ended() || job.is_ready == Some(true) || job.keeps_failing() {
            session.show_answer(&answer, Job::show)?;
            break job;
        }
        thread::sleep(PAUSE);
    };
    if job.state == "succeeded" || job.is_ready == Some(true) {
        return Ok(());
    }
    let reason = job.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Failure::failed(
        format!("the job {}{reason}", job.state),
        &format!("`gapctl job log {id}` shows what it printed"),
    ))
}
