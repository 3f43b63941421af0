//! `gap-train mlflow`

use gap_train::mlflow;
use std::{error::Error, path::PathBuf};

/// Write runs in the form that MLflow opens
#[derive(clap::Args)]
pub struct Mlflow {
    /// Output directories of jobs
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Directory to make; MLflow is started in it, on sqlite:///mlflow.db
    #[arg(short, long)]
    output: PathBuf,
    /// Name of the experiment
    #[arg(long, default_value = "fine-tuning")]
    experiment: String,
}

impl Mlflow {
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        mlflow::write(&self.experiment, &self.runs, &self.output)?;
        println!("cd {} && mlflow ui --backend-store-uri sqlite:///mlflow.db", self.output.display());
        Ok(())
    }
}
