//! `gapctl file`.

use super::{Failure, Outcome, Session, show};
use crate::{client::Request, profile, upload};
use clap::{Args, Subcommand, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Time between two looks at something that goes on.
pub const PAUSE: Duration = Duration::from_secs(1);

/// What is done with files.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Send a file; it is checked before anything can be trained on it. One that broke off goes on where it was
    Upload {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// What it is for: fine-tune, evals, user_data
        #[arg(long, default_value = "fine-tune")]
        purpose: String,
        /// Wait until it is checked; exits with 4 when it is not good
        #[arg(long)]
        wait: bool,
    },
    /// List files, the newest first
    List {
        /// Only those for this
        #[arg(long)]
        purpose: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Show what was found in it: duplicates, personal data, lengths, problems by line
    Report {
        /// Its id
        id: String,
    },
    /// Fetch its content
    Download {
        /// Its id
        id: String,
        #[command(flatten)]
        to: Destination,
    },
    /// Delete it
    Delete {
        /// Its id
        id: String,
    },
}

/// Which part of a list.
#[derive(Debug, Clone, Args)]
pub struct Page {
    /// Most items, at most 1000
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Only what comes after this id
    #[arg(long)]
    pub after: Option<String>,
}

impl Page {
    /// As pairs of a query.
    pub fn query(&self) -> [(&'static str, Option<String>); 2] {
        [("limit", Some(self.limit.to_string())), ("after", self.after.clone())]
    }
}

/// Where a download goes.
#[derive(Debug, Args)]
pub struct Destination {
    /// The file to write; standard output when absent
    #[arg(long, short, value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// A list, in OpenAI's shape.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

impl<T> List<T> {
    /// Says that there are more.
    pub fn tell_rest(&self, last: Option<&str>) {
        if let (true, Some(last)) = (self.has_more, last) {
            show::line(format!("… more: --after {}", show::plain(last.to_owned())));
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct File {
    id: String,
    bytes: u64,
    created_at: i64,
    filename: String,
    purpose: String,
    status: String,
    status_details: Option<String>,
    sha256: Option<String>,
}

impl File {
    fn show(self) {
        show::values(&[
            ("id", self.id),
            ("name", self.filename),
            ("purpose", self.purpose),
            ("bytes", self.bytes.to_string()),
            ("sha256", self.sha256.unwrap_or_default()),
            ("created", show::time(self.created_at)),
            ("status", self.status),
            ("details", self.status_details.unwrap_or_default()),
        ]);
    }
}

pub fn run(session: &Session, command: FileCommand) -> Outcome {
    match command {
        FileCommand::Upload { path, purpose, wait } => {
            let id = send(session, &path, &purpose)?;
            if wait {
                wait_until_checked(session, &id)?;
            }
            session.show(Request::get(&["v1", "files", &id]), File::show)
        }
        FileCommand::List { purpose, page } => {
            let [limit, after] = page.query();
            let request = Request::get(&["v1", "files"]).query(&[("purpose", purpose), limit, after]);
            session.show(request, |list: List<File>| {
                let row = |file: &File| {
                    let (file, size) = (file.clone(), show::bytes(file.bytes));
                    [file.id, size, file.purpose, file.status, show::time(file.created_at), file.filename]
                };
                let rows: Vec<_> = list.data.iter().map(row).collect();
                show::table(["ID", "SIZE", "PURPOSE", "STATUS", "CREATED", "NAME"], &rows);
                list.tell_rest(list.data.last().map(|file| file.id.as_str()));
            })
        }
        FileCommand::Show { id } => session.show(Request::get(&["v1", "files", &id]), File::show),
        FileCommand::Report { id } => {
            let answer = session.client.ask(Request::get(&["v1", "appliance", "files", &id, "report"]))?;
            session.print(&answer)
        }
        FileCommand::Download { id, to } => download(session, Request::get(&["v1", "files", &id, "content"]), &to),
        FileCommand::Delete { id } => {
            session.show(Request::delete(&["v1", "files", &id]), |_: Value| show::line(format!("deleted {id}")))
        }
    }
}

/// Sends a file with a bar and says its id.
fn send(session: &Session, path: &Path, purpose: &str) -> Result<String, Failure> {
    let bar = if session.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let memory = profile::directory("XDG_STATE_HOME", ".local/state").map(|directory| directory.join("uploads"));
    let there = upload::send(&session.client, path, purpose, memory.as_deref(), &bar)?;
    bar.finish_and_clear();
    Ok(there.id)
}

fn wait_until_checked(session: &Session, id: &str) -> Outcome {
    loop {
        let file: File = session.read_patiently(&Request::get(&["v1", "files", id]))?;
        match file.status.as_str() {
            "processed" => return Ok(()),
            "error" => {
                let found = file.status_details.unwrap_or_default();
                let advice = format!("`gapctl file report {id}` shows everything that was found");
                return Err(Failure::failed(format!("the file is not good: {found}"), &advice));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

/// What a request names as a file: an id or `dataset:NAME` as it is; a path is sent and checked first.
pub fn settle(session: &Session, named: &str) -> Result<String, Failure> {
    if named.starts_with("dataset:") || named.starts_with("file-") && !Path::new(named).exists() {
        return Ok(named.to_owned());
    }
    let id = send(session, Path::new(named), "fine-tune")?;
    wait_until_checked(session, &id)?;
    if !session.json {
        show::line(format!("{named} is {}", show::plain(id.clone())));
    }
    Ok(id)
}

/// Writes an answer to a file, which is there whole or not at all, or to standard output; a terminal there gets nothing that
/// commands it.
pub fn download(session: &Session, request: Request, to: &Destination) -> Outcome {
    let full = |error: io::Error| Failure::could_not(format!("writing what came: {error}"), "is there room for it?");
    let mut failed = None;
    let mut copy = |out: &mut dyn Write| {
        session.client.stream(request.clone(), |piece| match out.write_all(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })
    };
    match &to.output {
        None => {
            let mut out = io::stdout().lock();
            if out.is_terminal() {
                copy(&mut show::Plain::new(out))?
            } else {
                copy(&mut out)?
            }
            if let Some(error) = &failed {
                show::given_up(error);
            }
            io::stdout().flush().unwrap_or_else(|error| show::given_up(&error));
        }
        Some(path) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(directory).map_err(full)?;
            copy(file.as_file_mut())?;
            if failed.is_none() {
                file.as_file().sync_all().map_err(full)?;
                file.persist(path).map_err(|error| full(error.error))?;
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(full(error)))
}
