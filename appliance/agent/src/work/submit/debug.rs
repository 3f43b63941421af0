//! `POST /v1/appliance/debug`: a terminal inside of an image, for an admin and for a while.

use super::{SubmitError, Wishes, estimate::PROGRAM, is_in_image};
use crate::work::{
    Work,
    order::{Asked, Order},
};
use gap_jobs::{Demand, Job, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is looked for where the request names no program.
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];
/// How long it lasts where the request does not say, and at most, in seconds.
const USUAL: u64 = 900;
const LONGEST: u64 = 3600;
/// Most words of a program, and their longest, in characters.
const MAX_WORDS: (usize, usize) = (64, 4096);

/// A terminal to open.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDebug {
    /// The image of the release.
    pub image: String,
    /// Program and arguments; the image's shell when absent.
    #[serde(default)]
    #[schemars(extend("maxItems" = 64, "items" = {"type": "string", "pattern": "^[^\\u0000]{1,4096}$"}))]
    pub command: Vec<String>,
    /// A model that it sees in `/run/job/model`.
    #[serde(default)]
    pub model: Option<String>,
    /// What the person's terminal is, for `TERM`.
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9_.+-]{1,64}$"))]
    pub term: Option<String>,
    /// GPUs; none when absent.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// Memory of the machine, in bytes; 16 MiB at least, 1 GiB when absent.
    #[serde(default)]
    #[schemars(range(min = 16_777_216))]
    pub memory: Option<u64>,
    /// After so many seconds it is ended; 900 when absent, 3600 at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3600))]
    pub time_limit_seconds: Option<u64>,
}

impl Work {
    /// Takes a debug job in.
    ///
    /// # Errors
    /// [`SubmitError`] when anything of it is wrong or not there.
    pub fn debug(&self, request: &CreateDebug) -> Result<Job, SubmitError> {
        let limit = request.time_limit_seconds.unwrap_or(USUAL);
        if !(1..=LONGEST).contains(&limit) {
            return Err(SubmitError::field("time_limit_seconds", format!("1 to {LONGEST} seconds")));
        }
        let named = |error| of_image(error, &request.image);
        let order = Order {
            declared: String::new(),
            command: self.program(request).map_err(named)?,
            image: request.image.clone(),
            env: [("TERM".to_owned(), term(request.term.as_deref())?)].into(),
            datasets: Vec::new(),
            endpoints: BTreeMap::new(),
            training: None,
            validation: None,
            job: None,
            asked: Asked { model: request.model.clone(), ..Asked::default() },
            model: request.model.as_deref().map(|name| self.model(name)).transpose()?,
            has_terminal: true,
        };
        self.complete(&order).map_err(named)?;
        let memory = request.memory.unwrap_or_else(|| PROGRAM.saturating_mul(2).min(self.machine.memory));
        let demand = self.possible(Demand { gpus: request.gpus.unwrap_or(0), gpu_memory: 0, memory })?;
        // Nobody would come to a second one.
        let wishes = Wishes { attempts: Some(1), time_limit_seconds: Some(limit), ..Wishes::default() };
        self.enqueue(Kind::Run, &format!("debug {}", request.image), &order, demand, &wishes)
    }

    /// How long a job may run, in words.
    pub fn limit_of(&self, job: &Job) -> String {
        job.time_limit.map_or_else(|| "ever".to_owned(), |limit| format!("{} s", limit.as_secs()))
    }

    fn program(&self, request: &CreateDebug) -> Result<Vec<String>, SubmitError> {
        let (most, longest) = MAX_WORDS;
        let is_word = |word: &String| (1..=longest).contains(&word.chars().count()) && !word.contains('\0');
        if request.command.len() > most || !request.command.iter().all(is_word) {
            return Err(SubmitError::field("command", format!("at most {most} words of 1 to {longest} characters")));
        }
        if !request.command.is_empty() {
            return Ok(request.command.clone());
        }
        let root = self.catalog.images.mounted(&request.image)?;
        let shell = SHELLS.into_iter().find(|shell| is_in_image(&root, "/", shell));
        let shell = shell.map(|shell| vec![shell.to_owned()]);
        shell.ok_or_else(|| SubmitError::field("command", "this image has no shell: name a program of it"))
    }
}

/// What is wrong with the image that the request names is wrong with that field of it.
fn of_image(error: SubmitError, named: &str) -> SubmitError {
    match error {
        SubmitError::Image(error) if error.image() == named => SubmitError::field("image", error),
        other => other,
    }
}

fn term(term: Option<&str>) -> Result<String, SubmitError> {
    let term = term.unwrap_or("xterm-256color");
    let is_name = (1..=64).contains(&term.len())
        && term.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+.".contains(&byte));
    if is_name { Ok(term.to_owned()) } else { Err(SubmitError::field("term", "the name of a terminal, as `xterm`")) }
}
