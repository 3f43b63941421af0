//! The `gapctl` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gapctl::cmd::main()
}
