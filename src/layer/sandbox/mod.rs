//! Running programs where they see nothing but a given file tree.
//!
//! A program runs as root of new user, mount, process, network, IPC and host name spaces: without
//! network, without host paths but named read-only ones, with its own `/proc`, `/dev`, `/tmp` and
//! `/run`, a fixed environment and a time limit. It may not mount, trace, or make name spaces, and what in `/proc` is the
//! machine's is read-only. What it changed comes back as a layer. A root of which
//! nothing or little comes back is not copied: it is served from where its bytes lie ([`view`]), and what is
//! written lies over it.
//!
//! The work is done by a helper, the `gapimage` program itself with the hidden argument
//! [`ENTRY_ARGUMENT`]; a process must be single-threaded to enter a user name space, and only `exec`
//! gives one without `unsafe`. The helper needs either root or subordinate ids (`/etc/subuid`).

mod collect;
mod device;
mod entry;
mod ids;
mod init;
mod mounts;
mod populate;
mod protocol;
mod run;
mod view;

pub use entry::{ENTRY_ARGUMENT, entry};
pub use ids::IdMapError;
pub use run::Hear;

use super::{
    stack::StackError,
    tar,
    tree::{Tree, TreePath},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Runs jobs through a helper program.
#[derive(Debug, Clone)]
pub struct Sandbox {
    helper: PathBuf,
    spool: PathBuf,
}

/// What to run, and on what.
#[derive(Debug)]
pub struct Job<'a> {
    /// The file system that the programs find. Device nodes in it are left out (a user name space
    /// cannot make any) and not reported as gone.
    pub root: &'a Tree,
    /// Where that file system is kept while they run.
    pub scratch: Scratch,
    /// Host paths that they see.
    pub binds: Vec<Bind>,
    /// The programs, one after the other; the first that fails ends the job.
    pub steps: Vec<Step>,
    /// Modification time of everything that they make, seconds since 1970; also `SOURCE_DATE_EPOCH`.
    pub source_date: i64,
    /// How long all of it may take.
    pub time_limit: Duration,
    /// What of the root they may write.
    pub writes: Writes,
}

/// What of their root programs may write, and what comes back of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// Nothing of it, as on the appliance; `/tmp` and `/run` can be written. Nothing is copied, where FUSE can be had and
    /// nothing is bound.
    Nothing,
    /// All of it, and everything that changed comes back. The root is copied.
    Anywhere,
    /// All of it, and only what they left in this directory, which is empty at first, comes back. Where FUSE and overlayfs
    /// can be had and nothing is bound, only files that they write to are copied.
    Into(TreePath),
}

/// Where a sandbox keeps its root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scratch {
    /// In memory, at most this many bytes.
    Memory(u64),
    /// In this directory, which must exist and be empty, and is emptied again.
    Directory(PathBuf),
}

/// A host path that programs in a sandbox can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// A file or directory of the host; file systems mounted below it make it unusable.
    pub host: PathBuf,
    /// Where it appears; made if it is not there.
    pub inside: PathBuf,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Step {
    /// The program and its arguments; a bare name is looked for on the fixed `PATH`.
    pub command: Vec<String>,
    /// Environment on top of the fixed one.
    pub environment: BTreeMap<String, String>,
    /// Working directory; `/` if empty.
    pub directory: PathBuf,
}

impl Step {
    /// A program with its arguments.
    pub fn new<const N: usize>(command: [&str; N]) -> Self {
        Self { command: command.map(str::to_owned).to_vec(), ..Self::default() }
    }

    /// The same with one more variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// What a job left behind.
#[derive(Debug)]
pub struct Outcome {
    /// What to apply to the job's root to get what the programs made of it.
    pub changes: Tree,
    /// The end of what the programs printed.
    pub output: Vec<u8>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A program ended badly.
    #[error("in the sandbox, `{command}` ended with {status}; the end of its output:\n{output}")]
    Step {
        /// The program and its arguments.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The end of what it printed, escaped.
        output: String,
    },
    /// Everything took too long.
    #[error("the sandbox was stopped after {seconds} s, its time limit; the end of its output:\n{output}")]
    TimedOut {
        /// The limit.
        seconds: u64,
        /// The end of what was printed, escaped.
        output: String,
    },
    /// This program was asked to end.
    #[error("it was ended, as was asked")]
    Interrupted,
    /// The sandbox could not be set up or read.
    #[error("the sandbox failed: {message}{}{output}", if output.is_empty() { "" } else { "; the end of its output:\n" })]
    Broken {
        /// What went wrong.
        message: String,
        /// The end of what was printed, escaped.
        output: String,
    },
    /// The user's ids cannot be mapped.
    #[error(transparent)]
    Ids(#[from] IdMapError),
    /// The root file system cannot be handed over.
    #[error("cannot hand the root file system to the sandbox: {0}")]
    Root(#[from] tar::PlanError),
    /// The changes cannot be taken over.
    #[error("cannot take over what was made in the sandbox: {0}")]
    Changes(#[from] tar::IndexError),
    /// The changes contradict themselves.
    #[error("cannot take over what was made in the sandbox: {0}")]
    Stack(#[from] StackError),
    /// Something about files or processes.
    #[error("{during}: {source}")]
    Io {
        /// What was attempted.
        during: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Sandbox {
    /// A sandbox whose helper is `helper` (the `gapimage` program, see
    /// [`std::env::current_exe`]), and that spools file contents in the directory `spool`.
    pub fn new(helper: &Path, spool: &Path) -> Self {
        Self { helper: helper.to_owned(), spool: spool.to_owned() }
    }
}

impl Scratch {
    /// Memory if a root of `bytes` bytes fits there with ease, else a directory.
    pub fn for_size(bytes: u64, directory: &Path) -> Self {
        let wanted = bytes.saturating_mul(2).saturating_add(512 << 20);
        match available_memory() {
            Some(available) if wanted < available / 2 => Self::Memory(available / 2),
            _ => Self::Directory(directory.to_owned()),
        }
    }
}

/// Bytes of memory that could be used without swapping.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
