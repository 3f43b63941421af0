//! `gap-train eval`

use gap_train::eval::{EvaluationJob, evaluate};
use std::{error::Error, path::PathBuf};

/// Measure models on examples, compare them, and write a report
#[derive(clap::Args)]
pub struct Eval {
    /// What to evaluate (docs/evaluation.md)
    job: PathBuf,
    /// A rating sheet that was filled in; several with one option each
    #[arg(long, value_name = "SHEET.csv")]
    ratings: Vec<PathBuf>,
}

impl Eval {
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let job = EvaluationJob::read(&self.job)?;
        let mut told = None;
        let report = evaluate(&job, &self.ratings, |candidate, done, all| {
            // A line for each tenth.
            let tenth = (candidate.to_owned(), done * 10 / all.max(1));
            if told.as_ref() != Some(&tenth) {
                eprintln!("{candidate}: {done} of {all}");
                told = Some(tenth);
            }
        })?;
        for measured in &report.measured {
            println!(
                "{} {}: {:.4} ({} examples)",
                measured.candidate, measured.metric, measured.value, measured.examples
            );
        }
        println!("{}", job.output.join("report.html").display());
        Ok(())
    }
}
