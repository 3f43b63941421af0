//! `gap-train run`.

use clap::Args;
use gap_contract::Exit;
use gap_train::run::{self, Ended};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

/// Runs a job. SIGTERM and SIGINT stop it after a checkpoint
#[derive(Args)]
pub struct Run {
    /// The job file
    job: PathBuf,
    /// Goes on from the last checkpoint, if there is one
    #[arg(long)]
    resume: bool,
}

impl Run {
    pub fn run(self) -> Exit {
        let job = match super::read_job(&self.job) {
            Ok(job) => job,
            Err(exit) => return exit,
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            if let Err(error) = signal_hook::flag::register(signal, stop.clone()) {
                eprintln!("error: signals cannot be received: {error}");
                return Exit::Failed;
            }
        }
        match run::run(&job, self.resume, &stop) {
            Ok(Ended::Succeeded) => Exit::Succeeded,
            Ok(Ended::Stopped) => Exit::Stopped,
            Err(failed) => {
                eprintln!("error: {failed}");
                Exit::Failed
            }
        }
    }
}
