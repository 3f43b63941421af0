//! Serves language, embedding and classification models over OpenAI's API, from local directories only.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match gap_serve::run(&gap_serve::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gap-serve: {error}");
            ExitCode::FAILURE
        }
    }
}
