//! `gap-train run`.

use clap::Args;
use gap_contract::Exit;
use gap_train::run::{self, Ended};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Runs a job. SIGTERM and SIGINT stop it after a checkpoint
#[derive(Args)]
pub struct Run {
    /// The job file
    job: PathBuf,
    /// Goes on from the last checkpoint, if there is one
    #[arg(long)]
    resume: bool,
    /// How many seconds the result waits for room where the disk is full at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait_for_room: u64,
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
        match run::run(&job, self.resume, &stop, Duration::from_secs(self.wait_for_room)) {
            Ok(Ended::Succeeded) => Exit::Succeeded,
            Ok(Ended::Stopped) => Exit::Stopped,
            Err(failed) => {
                eprintln!("error: {failed}");
                Exit::Failed
            }
        }
    }
}
