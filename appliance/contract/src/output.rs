//! The layout of a job's output directory.

use std::path::{Path, PathBuf};

/// The output directory of a job: the one place that knows what lies where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output(PathBuf);

impl Output {
    /// The output in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The job as it ran, every default filled in.
    #[must_use]
    pub fn job(&self) -> PathBuf {
        self.0.join("job.json")
    }

    /// A row a step.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// What happened.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// What the result was made of; there only when the job succeeded.
    #[must_use]
    pub fn lineage(&self) -> PathBuf {
        self.0.join("lineage.json")
    }

    /// The adapter: PEFT's `adapter_config.json` and `adapter_model.safetensors`.
    #[must_use]
    pub fn adapter(&self) -> PathBuf {
        self.0.join("adapter")
    }

    /// The whole model in Hugging Face's layout, when all weights were trained.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// The directory of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The checkpoint after a step. The names sort in the order of the steps.
    #[must_use]
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}"))
    }

    /// The step of a checkpoint's directory name, none for anything else that lies there.
    #[must_use]
    pub fn checkpoint_step(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("step-")?;
        (digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
    }

    /// Held (`flock`) by the engine that works on the directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::Output;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_is_found_by_its_name(step: u64) {
            let path = Output::new("out").checkpoint(step);
            prop_assert_eq!(Output::checkpoint_step(path.file_name().unwrap().to_str().unwrap()), Some(step));
        }
    }

    #[test]
    fn other_names_are_no_checkpoints() {
        for name in ["step-1", "step-0000000x", "step-00000001.tmp", "best", "step-+0000001"] {
            assert_eq!(Output::checkpoint_step(name), None, "{name}");
        }
    }
}
