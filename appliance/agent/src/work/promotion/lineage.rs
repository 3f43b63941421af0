//! A deployment, noted in the lineage of the model.

use crate::work::{left::Left, storage::Storage};
use gap_contract::{Deployment, Output};
use gap_jobs::JobId;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

/// Longest lineage that is read, in bytes.
const MAX_LINEAGE: u64 = 16 << 20;
/// The list in the lineage.
const DEPLOYMENTS: &str = "deployments";

/// Held while one is noted: the next one has to read what this one wrote.
static NOTING: Mutex<()> = Mutex::new(());

/// Adds a deployment to the lineage of what this job made. Whatever else stands there stays as it is.
///
/// # Errors
/// What the system said, or that the lineage is none.
pub fn note(storage: &Storage, job: &JobId, deployment: &Deployment) -> io::Result<()> {
    let _turn = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Output::new(storage.output(job.as_str()));
    let left = Left::open(output.dir())?;
    let mut lineage: Value = serde_json::from_slice(&left.read(&Output::new("").lineage(), MAX_LINEAGE)?)?;
    let fields = lineage.as_object_mut().ok_or(io::ErrorKind::InvalidData)?;
    let deployments = fields.entry(DEPLOYMENTS).or_insert_with(|| Value::Array(Vec::new()));
    deployments.as_array_mut().ok_or(io::ErrorKind::InvalidData)?.push(serde_json::to_value(deployment)?);
    // Beside the directory that was the job's, where it cannot have put anything.
    let beside = output.dir().with_file_name("lineage.json.new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(&lineage)?)?;
    file.sync_all()?;
    fs::rename(&beside, output.lineage())?;
    File::open(output.dir())?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::storage::Volume;
    use gap_contract::Release;
    use serde_json::json;

    #[test]
    fn each_deployment_is_added_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let job = JobId::new(JobId::TRAINING);
        let output = storage.output(job.as_str());
        let release = Release { name: "r".into(), version: "1".into(), digest: "d".into() };
        let deployment = Deployment { name: "support".into(), deployed_at: 1, release, gpus: Vec::new(), driver: None };
        assert!(note(&storage, &job, &deployment).is_err(), "there is no lineage");
        fs::create_dir_all(&output).unwrap();
        fs::write(output.join("lineage.json"), r#"{"version":1,"extra":2}"#).unwrap();
        note(&storage, &job, &deployment).unwrap();
        note(&storage, &job, &Deployment { deployed_at: 2, ..deployment }).unwrap();
        let lineage: Value = serde_json::from_slice(&fs::read(output.join("lineage.json")).unwrap()).unwrap();
        assert_eq!((&lineage["version"], &lineage["extra"]), (&json!(1), &json!(2)));
        let times: Vec<&Value> =
            lineage["deployments"].as_array().unwrap().iter().map(|one| &one["deployed_at"]).collect();
        assert_eq!(times, [&json!(1), &json!(2)]);
        fs::write(output.join("lineage.json"), "[]").unwrap();
        assert!(note(&storage, &job, &Deployment { name: "x".into(), ..lineage_deployment() }).is_err());
        assert_eq!(fs::read(output.join("lineage.json")).unwrap(), b"[]", "what is no lineage is left alone");
    }

    #[test]
    fn of_many_that_are_noted_at_once_none_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Volume::Memory { reason: "test".into() }).unwrap();
        let job = JobId::new(JobId::TRAINING);
        let output = storage.output(job.as_str());
        fs::create_dir_all(&output).unwrap();
        fs::write(output.join("lineage.json"), r#"{"version":1}"#).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..8).for_each(|_| note(&storage, &job, &lineage_deployment()).unwrap()));
            }
        });
        let lineage: Value = serde_json::from_slice(&fs::read(output.join("lineage.json")).unwrap()).unwrap();
        assert_eq!(lineage["deployments"].as_array().unwrap().len(), 64);
    }

    fn lineage_deployment() -> Deployment {
        let release = Release { name: "r".into(), version: "1".into(), digest: "d".into() };
        Deployment { name: String::new(), deployed_at: 0, release, gpus: Vec::new(), driver: None }
    }
}
