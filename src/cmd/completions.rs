//! `gapimage completions`.

use super::Outcome;

/// Prints the completions for one shell.
pub fn run(shell: clap_complete::Shell, command: &mut clap::Command) -> Outcome {
    clap_complete::generate(shell, command, "gapimage", &mut std::io::stdout());
    Ok(())
}
