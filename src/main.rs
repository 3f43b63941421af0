//! The `gapimage` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gapimage::cmd::main()
}
