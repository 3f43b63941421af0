//! What a run is made from: what must be the same for it to go on, and what its lineage names.

use crate::{
    data::Examples,
    digest,
    error::{Failed, invalid_data},
    files,
    plan::Plan,
};
use gap_contract::{DataFile, FailureCode, Job, JobSpec, Role};
use std::{collections::BTreeMap, fs, path::Path};

/// Files of a model directory that make tokens of examples.
const READ_WITH: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

pub(super) fn data_files(job: &Job, plan: &Plan) -> Result<Vec<DataFile>, Failed> {
    let file = |role, path: &Path, examples: &Examples| -> Result<DataFile, Failed> {
        let unread = |error: &dyn std::fmt::Display| invalid_data(path, 0, format!("it cannot be read: {error}"));
        Ok(DataFile {
            role,
            name: name(path),
            sha256: digest::of_file(path).map_err(|error| unread(&error))?,
            bytes: fs::metadata(path).map_err(|error| unread(&error))?.len(),
            examples: examples.rows,
            truncated: examples.truncated,
        })
    };
    let mut files = vec![file(Role::Training, &job.training_file, &plan.training)?];
    if let (Some(path), Some(examples)) = (&job.validation_file, &plan.validation) {
        files.push(file(Role::Validation, path, examples)?);
    }
    Ok(files)
}

/// What must be the same for a run to go on: all that decides about numbers, but for the learning rate, which is what one
/// changes when a run went astray. Computing activations again changes no number. The base's weights take long to hash, and
/// are compared later.
pub(super) fn of(job: &Job, data: &[DataFile]) -> Result<String, Failed> {
    let spec = JobSpec {
        output: "".into(),
        save_steps: None,
        save_total_limit: None,
        metadata: BTreeMap::new(),
        learning_rate: 0.0,
        gradient_checkpointing: false,
        ..job.clone().into_spec()
    };
    let files: Vec<&str> = data.iter().map(|file| file.sha256.as_str()).collect();
    let read_with = digest::of_files(&job.model, &READ_WITH).map_err(|error| Failed::model(error.to_string()))?;
    let text = serde_json::to_vec(&(spec, files, read_with))
        .map_err(|error| Failed::new(FailureCode::Internal, error.to_string()))?;
    Ok(files::digest(&text))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
