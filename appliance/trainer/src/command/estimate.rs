//! `gap-train estimate`.

use clap::Args;
use gap_contract::Exit;
use gap_train::plan::Plan;
use std::path::PathBuf;

/// Says what memory a job needs and how many steps it makes, as JSON; nothing is written
#[derive(Args)]
pub struct Estimate {
    /// The job file
    job: PathBuf,
}

impl Estimate {
    pub fn run(self) -> Exit {
        let job = match super::read_job(&self.job) {
            Ok(job) => job,
            Err(exit) => return exit,
        };
        match Plan::make(&job, None) {
            Ok(plan) => {
                let text = serde_json::json!({
                    "steps": plan.total,
                    "batch_size": plan.batch,
                    "weights": plan.estimate.weights,
                    "training": plan.estimate.training,
                    "activations": plan.estimate.activations,
                    "total": plan.estimate.total(),
                    "available": plan.available,
                });
                println!("{text}");
                Exit::Succeeded
            }
            Err(failed) => {
                eprintln!("error: {failed}");
                Exit::Failed
            }
        }
    }
}
