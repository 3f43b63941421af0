//! `gapimage completions`.

use super::{Outcome, failure::failed};
use crate::report::output::print_bytes;

/// Prints the completions for one shell.
pub fn run(shell: clap_complete::Shell, command: &mut clap::Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, "gapimage", &mut text);
    print_bytes(&text).map_err(failed("writing to standard output"))
}
