//! Fine-tunes language models from a job file: LoRA, full and DPO, on candle.

mod command;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Fine-tunes language models, evaluates them, and brings them into other forms")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(command::init::Init),
    Run(command::run::Run),
    Estimate(command::estimate::Estimate),
    Eval(command::eval::Eval),
    Merge(command::merge::Merge),
    Export(command::export::Export),
    Mlflow(command::mlflow::Mlflow),
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Init(init) => init.run(),
        Command::Run(run) => return run.run().into(),
        Command::Estimate(estimate) => return estimate.run().into(),
        Command::Eval(eval) => eval.run(),
        Command::Merge(merge) => merge.run(),
        Command::Export(export) => export.run(),
        Command::Mlflow(mlflow) => mlflow.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
