//! The program's commands, one a file.

pub mod estimate;
pub mod eval;
pub mod export;
pub mod init;
pub mod merge;
pub mod mlflow;
pub mod run;

use gap_contract::{Exit, Job, JobSpec, MAX_JOB_BYTES};
use std::{fs, io::Read, path::Path};

/// Reads a job file; relative paths in it begin at its directory. What is wrong goes to the terminal.
pub fn read_job(path: &Path) -> Result<Job, Exit> {
    let refuse = |what: &dyn std::fmt::Display| {
        eprintln!("error: {}: {what}", path.display());
        Exit::Usage
    };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| refuse(&error))?;
    file.take(MAX_JOB_BYTES as u64 + 1).read_to_end(&mut text).map_err(|error| refuse(&error))?;
    let mut spec = JobSpec::parse(&text).map_err(|error| refuse(&error))?;
    let own = std::path::absolute(path).map_err(|error| refuse(&error))?;
    let base = own.parent().unwrap_or(Path::new("/"));
    let paths = [&mut spec.model, &mut spec.training_file, &mut spec.output];
    let optional = [&mut spec.adapter, &mut spec.validation_file].into_iter().filter_map(Option::as_mut);
    paths.into_iter().chain(optional).for_each(|path| *path = base.join(&*path));
    spec.check().map_err(|error| refuse(&error))
}
