//! What the two halves of the sandbox tell each other.
//!
//! The caller writes the length of the specification (8 bytes, little endian) and the specification
//! (JSON) to the helper's standard input. The helper enters its name spaces and writes [`MAP_ME`] to
//! its standard output; the caller sets the id maps and answers [`MAPPED`]. If the root is to be a view, the helper mounts it
//! and sends the device that its answers are to be written to over its standard input, which is a socket. Then the helper
//! writes one [`Report`] (JSON) and exits. Its standard error is the programs' output.

use super::{Bind, Scratch, Step};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// "I am in my user name space."
pub(super) const MAP_ME: u8 = b'M';
/// "Your id maps are set."
pub(super) const MAPPED: u8 = b'G';
/// Longest specification or report, in bytes.
pub(super) const MAX_MESSAGE: u64 = 64 << 20;

/// What the helper shall do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Specification {
    /// The file system to begin with, a layer tar of `input_len` bytes.
    pub input: PathBuf,
    pub input_len: u64,
    /// Where the layer tar of the changes goes; the file exists and is empty.
    pub output: PathBuf,
    pub scratch: Scratch,
    pub binds: Vec<Bind>,
    pub steps: Vec<Step>,
    pub source_date: i64,
    /// Whether the root is made read-only before the programs run.
    pub read_only: bool,
    /// Whether the caller serves the root through FUSE; then there is no input.
    pub view: bool,
    /// The directory of which everything comes back, as a path in a tree; where there is none, in a view nothing does, and
    /// what changed does in a copy.
    pub into: Option<Vec<u8>>,
    /// Only empty the scratch directory, which an interrupted run left full.
    pub clean_only: bool,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Every step succeeded and the changes are written.
    Done { output_len: u64 },
    /// A step ended badly.
    StepFailed { step: usize, status: String },
    /// The root cannot be served through FUSE here; nothing was run.
    NoView { message: String },
    /// The sandbox itself could not do its work.
    Broken { message: String },
}
