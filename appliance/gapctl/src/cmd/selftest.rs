//! `gapctl selftest`: burn-in. Memory and disk by a job of the appliance's own, then ten training steps on every GPU, or on
//! the processor where there is none; a report at the end.

mod gpus;

use super::{
    Failure, Outcome, Session,
    file::{self, List, PAUSE},
    job::JOBS,
    show,
};
use crate::client::Request;
use clap::{Args, ValueHint};
use gpus::Gpus;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    thread,
};

/// Steps of training on each GPU.
const STEPS: usize = 10;
/// Examples that are trained on; more than a step takes.
const EXAMPLES: usize = 32;
/// Where fine-tuning jobs are.
const TUNING: [&str; 3] = ["v1", "fine_tuning", "jobs"];

/// How much is tested.
#[derive(Debug, Args)]
pub struct SelfTest {
    /// Bytes of memory [default: all that jobs may have, so it waits until no other runs]
    #[arg(long)]
    memory: Option<u64>,
    /// Bytes that are written to the data volume and read back [default: 1 GiB]
    #[arg(long)]
    disk: Option<u64>,
    /// The model that is trained for ten steps [default: that of the first training job of the release]
    #[arg(long)]
    model: Option<String>,
    /// Tests memory and disk alone; GPUs are not looked at
    #[arg(long)]
    no_training: bool,
    /// Writes the report to this file as well, in JSON
    #[arg(long, short, value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// The outcome of one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    /// `memory`, `disk`, `training`, `gpu`.
    part: &'static str,
    /// On which device, for training; which GPU.
    on: String,
    /// Whether it is as it should be; nothing for what was not tested.
    is_good: Option<bool>,
    /// What was done, or what was wrong.
    details: String,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    state: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Found {
    memory: Part,
    disk: Part,
}

#[derive(Deserialize)]
struct Part {
    bytes: u64,
    passes: u64,
    seconds: f64,
    faults: Vec<String>,
}

pub fn self_test(session: &Session, args: &SelfTest) -> Outcome {
    let lines = match training(session, args)? {
        Planned::Training(training) => {
            let lines = training.all_parts(session, args);
            drop(session.client.ask(Request::delete(&["v1", "files", &training.file])));
            lines?
        }
        Planned::Nothing(reason) => {
            let mut lines = memory_and_disk(session, &order(session, args)?)?.0;
            lines.push(untested("training", reason.to_owned()));
            if !args.no_training {
                lines.extend(Gpus::ask(session)?.lines(&slots(session)?));
            }
            lines
        }
    };
    tell(session, args, &lines)
}

fn tell(session: &Session, args: &SelfTest, lines: &[Line]) -> Outcome {
    let bad = lines.iter().filter(|line| line.is_good == Some(false)).count();
    let report = json!({"object": "self_test", "is_good": bad == 0, "parts": lines});
    let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
    if let Some(path) = &args.output {
        let failed = |error| Failure::could_not(format!("writing {}: {error}", path.display()), "is there room?");
        std::fs::write(path, &text).map_err(failed)?;
    }
    if session.json {
        show::text(&text);
    } else {
        let verdict = |line: &Line| match line.is_good {
            Some(true) => "good",
            Some(false) => "BAD",
            None => "not tested",
        };
        let row = |line: &Line| [line.part.to_owned(), line.on.clone(), verdict(line).to_owned(), line.details.clone()];
        show::table(["PART", "ON", "VERDICT", "DETAILS"], &lines.iter().map(row).collect::<Vec<_>>());
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::failed(
            format!("{bad} parts of the self-test found something wrong"),
            "`gapctl job log ID` shows what a job printed; `gapctl system` what the GPUs say of themselves",
        )),
    }
}

const fn untested(part: &'static str, details: String) -> Line {
    Line { part, on: String::new(), is_good: None, details }
}

/// Asks for the test of memory and disk.
fn order(session: &Session, args: &SelfTest) -> Result<String, Failure> {
    let wanted = json!({"memory": args.memory, "disk": args.disk});
    let job: Job = session.read(Request::post_json(&["v1", "appliance", "selftest"], &wanted)?)?;
    eprintln!("{}: memory and disk", show::plain(job.id.clone()));
    Ok(job.id)
}

/// Waits for that test. Says as well whether its job succeeded.
fn memory_and_disk(session: &Session, id: &str) -> Result<(Vec<Line>, bool), Failure> {
    let ended = wait(session, id)?;
    let has_succeeded = ended.state == "succeeded";
    let report = [&JOBS[..], &[id, "outputs", "self-test.json"]].concat();
    let lines = match session.read_patiently::<Found>(&Request::get(&report)) {
        Ok(found) => [("memory", found.memory), ("disk", found.disk)].map(|(name, part)| part.line(name)).to_vec(),
        Err(_) => vec![Line {
            part: "memory",
            on: String::new(),
            is_good: Some(false),
            details: format!("{id} is {}: {}", ended.state, ended.reason.unwrap_or_default()),
        }],
    };
    forget(session, id);
    Ok((lines, has_succeeded))
}

impl Part {
    fn line(&self, part: &'static str) -> Line {
        let done =
            format!("{} written and read back {} times, {:.1} s", show::bytes(self.bytes), self.passes, self.seconds);
        let details = if self.faults.is_empty() { done } else { format!("{done}: {}", self.faults.join("; ")) };
        Line { part, on: String::new(), is_good: Some(self.faults.is_empty()), details }
    }
}

/// What is to be trained.
struct Training {
    model: String,
    /// The examples.
    file: String,
    /// GPUs and slices for jobs, and those of them that can be given to one.
    slots: Vec<String>,
    usable: Vec<String>,
}

/// Whether anything is.
enum Planned {
    Training(Training),
    /// Why not.
    Nothing(&'static str),
}

fn training(session: &Session, args: &SelfTest) -> Result<Planned, Failure> {
    if args.no_training {
        return Ok(Planned::Nothing("not asked for"));
    }
    let Some(model) = model(session, args)? else {
        return Ok(Planned::Nothing("the release declares no training job"));
    };
    // Once it is known what jobs are given, the GPUs are prepared.
    let slots = slots(session)?;
    let usable = Gpus::ask(session)?.usable(&slots);
    if usable.is_empty() {
        eprintln!("there is no GPU that works: the processor trains");
    }
    let mut examples = tempfile::Builder::new().suffix(".jsonl").tempfile().map_err(of_file)?;
    examples.write_all(examples_text().as_bytes()).map_err(of_file)?;
    let file = file::settle(session, &examples.path().to_string_lossy())?;
    Ok(Planned::Training(Training { model, file, slots, usable }))
}

impl Training {
    /// Everything there is to test.
    fn all_parts(&self, session: &Session, args: &SelfTest) -> Result<Vec<Line>, Failure> {
        let test = order(session, args)?;
        // Held until that test is over, so that all begin at once and each gets a GPU of its own. A test that is over by now
        // holds nothing, and one that failed refuses what needs it.
        let held = if self.usable.len() > 1 { self.start(session, Some(&test)).ok() } else { None };
        let (mut lines, has_succeeded) = memory_and_disk(session, &test)?;
        let jobs = match held {
            Some(jobs) if has_succeeded => jobs,
            // What needed the test that failed does not start any more.
            _ => self.start(session, None)?,
        };
        for id in &jobs {
            lines.push(steps(session, id, self.usable.is_empty())?);
        }
        let trained: BTreeSet<&str> = lines.iter().map(|line| line.on.as_str()).collect();
        let missed = self.usable.iter().filter(|gpu| !trained.contains(gpu.as_str())).map(|gpu| Line {
            part: "training",
            on: gpu.clone(),
            is_good: Some(false),
            details: "no job was placed on it: too small for this model, or the machine's memory for so many at once"
                .to_owned(),
        });
        let missed: Vec<Line> = missed.collect();
        lines.extend(missed);
        // One may have failed under its work.
        lines.extend(Gpus::ask(session)?.lines(&self.slots));
        Ok(lines)
    }

    /// A job for each GPU, or one for the processor; all of them or none.
    fn start(&self, session: &Session, after: Option<&str>) -> Result<Vec<String>, Failure> {
        let gpus = u32::from(!self.usable.is_empty());
        let mut jobs = Vec::new();
        for _ in 0..self.usable.len().max(1) {
            match tune(session, self, gpus, after) {
                Ok(id) => jobs.push(id),
                Err(failure) => {
                    // Nobody waits for them, and they would take GPUs from those that are started instead.
                    for id in &jobs {
                        drop(session.client.ask(Request::post(&[&JOBS[..], &[id, "cancel"]].concat())));
                    }
                    return Err(failure);
                }
            }
        }
        Ok(jobs)
    }
}

fn of_file(error: io::Error) -> Failure {
    Failure::could_not(format!("writing examples: {error}"), "is there room in the directory for temporary files?")
}

/// Sums, which need no knowledge of the world.
fn examples_text() -> String {
    let mut text = String::new();
    for number in 0..EXAMPLES {
        let row = json!({"prompt": format!("{number} plus {number} is "), "completion": format!("{}.", number * 2)});
        // Writing to a string does not fail.
        let _ = writeln!(text, "{row}");
    }
    text
}

/// The model to train: the one that was named, else that of the first training job of the release.
fn model(session: &Session, args: &SelfTest) -> Result<Option<String>, Failure> {
    let declared: Value = session.read(Request::get(&["v1", "appliance", "declared"]))?;
    let jobs = declared.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut training = jobs.iter().filter(|job| job.get("kind").is_some_and(|kind| kind == "train"));
    let first = training.next();
    let named = |job: &Value| job.get("model").and_then(Value::as_str).map(str::to_owned);
    Ok(first.and_then(|job| args.model.clone().or_else(|| named(job))))
}

/// The GPUs, or slices of them, that jobs are given.
fn slots(session: &Session) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Machine {
        gpus: Vec<String>,
    }
    let machine: Machine = session.read_patiently(&Request::get(&["v1", "appliance", "storage"]))?;
    Ok(machine.gpus)
}

fn tune(session: &Session, training: &Training, gpus: u32, after: Option<&str>) -> Result<String, Failure> {
    let needs: Vec<&str> = after.into_iter().collect();
    let wanted = json!({
        "model": training.model,
        "training_file": training.file,
        "suffix": "selftest",
        "appliance": {"gpus": gpus, "attempts": 1, "needs": needs, "parameters": {"max_steps": STEPS}},
    });
    #[derive(Deserialize)]
    struct Made {
        id: String,
    }
    let made: Made = session.read(Request::post_json(&TUNING, &wanted)?)?;
    eprintln!("{}: {STEPS} steps of training", show::plain(made.id.clone()));
    Ok(made.id)
}

/// Waits for a training job and says where it trained, and how far it got.
fn steps(session: &Session, id: &str, on_processor: bool) -> Result<Line, Failure> {
    let job = wait(session, id)?;
    let used = places(session, id)?;
    let metrics = session.ask_patiently(&Request::get(&[&JOBS[..], &[id, "metrics"]].concat()));
    let rows = metrics.map(|answer| String::from_utf8_lossy(answer.bytes()).into_owned()).unwrap_or_default();
    let (done, loss) = progress(&rows);
    let has_succeeded = job.state == "succeeded";
    let idle = if has_succeeded && !on_processor { idle(session, id) } else { None };
    forget(session, id);
    let is_good = has_succeeded && done == STEPS && loss.is_some_and(f64::is_finite) && idle.is_none();
    let reason = job.reason.or(idle).map(|reason| format!(": {reason}")).unwrap_or_default();
    let loss = loss.map(|loss| format!(", loss {loss:.3}")).unwrap_or_default();
    Ok(Line {
        part: "training",
        on: if on_processor { "processor, for want of a GPU".to_owned() } else { used.join(", ") },
        is_good: Some(is_good),
        details: format!("{done} of {STEPS} steps{loss}, {}{reason}", job.state),
    })
}

/// Why a job that was given a GPU did not compute on it, by what its result says of itself.
fn idle(session: &Session, id: &str) -> Option<String> {
    let path = [&JOBS[..], &[id, "outputs", "lineage.json"]].concat();
    let lineage: Option<Value> = session.read_patiently(&Request::get(&path)).ok();
    match lineage.as_ref().and_then(|lineage| lineage.pointer("/engine/device")).and_then(Value::as_str) {
        Some("cpu") => {
            Some("it was given a GPU and computed on the processor; is its program made for GPUs?".to_owned())
        }
        Some(_) => None,
        None => Some("its lineage does not say on what it computed".to_owned()),
    }
}

/// Steps that were made, and the loss of the last one.
fn progress(metrics: &str) -> (usize, Option<f64>) {
    let rows = metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let losses: Vec<f64> = rows.filter_map(|row| row.get("train_loss")?.as_f64()).collect();
    (losses.len(), losses.last().copied())
}

/// Waits until a job has ended.
fn wait(session: &Session, id: &str) -> Result<Job, Failure> {
    loop {
        let job: Job = session.read_patiently(&Request::get(&[&JOBS[..], &[id]].concat()))?;
        if matches!(job.state.as_str(), "succeeded" | "failed" | "cancelled") {
            return Ok(job);
        }
        thread::sleep(PAUSE);
    }
}

/// The GPUs that a job ran on last, by the events of its starts: the job itself has them only while it runs.
fn places(session: &Session, id: &str) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Happened {
        id: String,
        #[serde(default)]
        data: Data,
    }
    #[derive(Default, Deserialize)]
    struct Data {
        gpus: Option<Vec<String>>,
    }
    let mut after = None;
    loop {
        let query = [("limit", Some("100".to_owned())), ("after", after)];
        let request = Request::get(&[&JOBS[..], &[id, "events"]].concat()).query(&query);
        let page: List<Happened> = session.read_patiently(&request)?;
        after = page.data.last().filter(|_| page.has_more).map(|event| event.id.clone());
        // The newest comes first.
        let found = page.data.into_iter().find_map(|event| event.data.gpus);
        if found.is_some() || after.is_none() {
            return Ok(found.unwrap_or_default());
        }
    }
}

/// Deletes what a job left behind: nobody wants a model of sums. It is no fault of the machine where that fails.
fn forget(session: &Session, id: &str) {
    drop(session.client.ask(Request::delete(&[&JOBS[..], &[id, "outputs"]].concat())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_their_losses() {
        let rows = "{\"step\": 1, \"train_loss\": 2.5}\n{\"step\": 1, \"valid_loss\": 2.0}\n{\"step\": 2, \"train_loss\": 1.5}\n";
        assert_eq!(progress(rows), (2, Some(1.5)));
        assert_eq!(progress("nonsense\n"), (0, None));
    }

    #[test]
    fn examples_are_rows_of_a_form_that_is_known_and_no_two_are_the_same() {
        let text = examples_text();
        let rows: BTreeSet<&str> = text.lines().collect();
        assert_eq!(rows.len(), EXAMPLES);
        assert!(rows.iter().all(|row| serde_json::from_str::<Value>(row).unwrap()["completion"].is_string()));
    }

    #[test]
    fn a_fault_is_told_and_counts() {
        let part = Part { bytes: 1 << 20, passes: 3, seconds: 0.5, faults: vec!["word 7 is wrong".into()] };
        let line = part.line("memory");
        assert_eq!((line.part, line.is_good), ("memory", Some(false)));
        assert!(line.details.ends_with(": word 7 is wrong"), "{}", line.details);
    }
}
