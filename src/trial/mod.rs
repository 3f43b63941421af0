//! Trying images: programs run in the tree of an image without a network and with a read-only root, as they will on the
//! appliance.

mod environment;
mod libraries;
mod probe;
mod record;

pub use environment::OFFLINE;
pub use libraries::{MissingLibrary, missing_libraries};
pub use record::{Record, Verdict};

use crate::layer::{
    files::FILES_DATE,
    sandbox::{Hear, Job, Sandbox, SandboxError, Scratch, Step, Writes},
    tree::Tree,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// One thing to try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its name.
    pub name: String,
    /// Python modules that must be importable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
    /// The program and its arguments; only the imports are tried when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables of the image and of the trial.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where the program starts; `/` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
    /// Texts that it must print.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<String>,
    /// How long it may take, in seconds.
    pub time_limit: u64,
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A program ended badly, or the sandbox could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The program ended well, but did not print what it should have.
    #[error("it did not print `{}`; the end of what it printed:\n{printed}", expected.escape_debug())]
    Silent {
        /// What it should have printed.
        expected: String,
        /// The end of what it printed.
        printed: String,
    },
    /// A place for the tree cannot be made.
    #[error("making a place for the image in `{}`: {source}", directory.display())]
    Place {
        /// Where.
        directory: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Where trials run.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// The `gapimage` program, which the sandbox runs as its helper.
    pub program: &'a Path,
    /// Takes the image while programs run in it.
    pub spool: &'a Path,
}

/// Bytes that programs may write to `/tmp` and leave in memory beside the image.
const WRITTEN: u64 = 1 << 30;

impl Trial {
    /// Runs the trial in `image`; `hear` is told what is printed.
    ///
    /// # Errors
    /// [`TrialError`] if anything of it does not work.
    pub fn run(&self, image: &Tree, bench: Bench<'_>, hear: Hear<'_>) -> Result<(), TrialError> {
        let failed = |source| TrialError::Place { directory: bench.spool.to_owned(), source };
        let directory = tempfile::tempdir_in(bench.spool).map_err(failed)?;
        let job = Job {
            root: image,
            scratch: Scratch::for_size(image.file_bytes() + WRITTEN, directory.path()),
            binds: Vec::new(),
            steps: self.steps(),
            source_date: FILES_DATE,
            time_limit: Duration::from_secs(self.time_limit),
            writes: Writes::Nothing,
        };
        let outcome = Sandbox::new(bench.program, bench.spool).run_heard(&job, hear)?;
        let printed = String::from_utf8_lossy(&outcome.output);
        match self.expect.iter().find(|text| !printed.contains(text.as_str())) {
            Some(expected) => Err(TrialError::Silent { expected: expected.clone(), printed: printed.into_owned() }),
            None => Ok(()),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let probe = (!self.imports.is_empty()).then(|| probe::command(&self.imports));
        let own = (!self.command.is_empty()).then(|| self.command.clone());
        let offline = OFFLINE.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut environment: BTreeMap<String, String> = offline.collect();
        environment.extend(self.env.clone());
        let step =
            |command| Step { command, environment: environment.clone(), directory: self.directory.clone().into() };
        probe.into_iter().chain(own).map(step).collect()
    }
}
