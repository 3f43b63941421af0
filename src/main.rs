//! The `gapimage` command.

use gapimage::layer::sandbox;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == sandbox::ENTRY_ARGUMENT).is_some() {
        return sandbox::entry(arguments);
    }
    gapimage::cmd::main()
}
