//! What must hold between the fields of a job before anything is read or written.

use crate::job::{BatchSize, DpoLoss, JobSpec, Lora, Method, Scheduler, TargetModules};
use std::{fmt, ops::Deref};

/// A job whose fields fit together. Files and model are not looked at yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Job(JobSpec);

impl Deref for Job {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.0
    }
}

impl Job {
    /// The fields.
    #[must_use]
    pub fn into_spec(self) -> JobSpec {
        self.0
    }
}

/// One thing wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, as a path (`lora.r`).
    pub param: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.param, self.message)
    }
}

/// All that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job cannot be run: {}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidJob(pub Vec<Fault>);

impl JobSpec {
    /// Checks the fields against each other.
    ///
    /// # Errors
    /// [`InvalidJob`] with everything that is wrong, not only the first.
    pub fn check(self) -> Result<Job, InvalidJob> {
        let mut faults = Faults(Vec::new());
        length(&self, &mut faults);
        batches(&self, &mut faults);
        optimiser(&self, &mut faults);
        adapter(&self, &mut faults);
        measuring(&self, &mut faults);
        preferences(&self, &mut faults);
        if faults.0.is_empty() { Ok(Job(self)) } else { Err(InvalidJob(faults.0)) }
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    fn require(&mut self, holds: bool, param: &'static str, message: impl Into<String>) {
        if !holds {
            self.0.push(Fault { param, message: message.into() });
        }
    }

    fn finite(&mut self, value: f64, param: &'static str, range: std::ops::RangeInclusive<f64>) {
        let holds = value.is_finite() && range.contains(&value);
        let (low, high) = (range.start(), range.end());
        if *high == f64::MAX {
            self.require(holds, param, format!("is {value}; it must be a number from {low} on"));
        } else {
            self.require(holds, param, format!("is {value}; it must lie between {low} and {high}"));
        }
    }
}

fn length(job: &JobSpec, faults: &mut Faults) {
    match (job.n_epochs, job.max_steps) {
        (None, None) => faults.require(false, "n_epochs", "nothing says how long to train; give it or `max_steps`"),
        (Some(_), Some(_)) => faults.require(false, "n_epochs", "stands beside `max_steps`; only one can decide"),
        (Some(epochs), None) => faults.require(
            epochs.is_finite() && epochs > 0.0 && epochs <= 1e6,
            "n_epochs",
            format!("is {epochs}; it must be above 0 and at most a million"),
        ),
        (None, Some(steps)) => faults.require(steps > 0, "max_steps", "is 0; at least one step must be made"),
    }
}

fn batches(job: &JobSpec, faults: &mut Faults) {
    if let BatchSize::Examples(size) = job.batch_size {
        faults.require((1..=1 << 20).contains(&size), "batch_size", format!("is {size}; it must be 1 to 1048576"));
    }
    let accumulation = job.gradient_accumulation_steps;
    faults.require(
        (1..=1 << 20).contains(&accumulation),
        "gradient_accumulation_steps",
        format!("is {accumulation}; it must be 1 to 1048576"),
    );
    let length = job.max_length;
    faults.require((2..=1 << 24).contains(&length), "max_length", format!("is {length}; it must be 2 to 16777216"));
    faults.require(
        !(job.packing && job.method == Method::Dpo),
        "packing",
        "is on, but preferences are compared as pairs and cannot be packed; leave it out",
    );
}

fn optimiser(job: &JobSpec, faults: &mut Faults) {
    faults.finite(job.learning_rate, "learning_rate", 0.0..=f64::MAX);
    faults.finite(job.weight_decay, "weight_decay", 0.0..=f64::MAX);
    faults.finite(job.max_grad_norm, "max_grad_norm", 0.0..=f64::MAX);
    faults.require(
        (0.0..1.0).contains(&job.adam_beta1),
        "adam_beta1",
        format!("is {}; it must be from 0 to below 1", job.adam_beta1),
    );
    faults.require(
        (0.0..1.0).contains(&job.adam_beta2),
        "adam_beta2",
        format!("is {}; it must be from 0 to below 1", job.adam_beta2),
    );
    faults.require(
        job.adam_epsilon.is_finite() && job.adam_epsilon > 0.0,
        "adam_epsilon",
        format!("is {}; it must be above 0", job.adam_epsilon),
    );
    if let Some(ratio) = job.warmup_ratio {
        faults.finite(ratio, "warmup_ratio", 0.0..=1.0);
        faults.require(job.warmup_steps.is_none(), "warmup_ratio", "stands beside `warmup_steps`; only one can decide");
    }
    let warm = job.warmup_steps.is_some_and(|steps| steps > 0) || job.warmup_ratio.is_some_and(|ratio| ratio > 0.0);
    faults.require(
        !(warm && job.lr_scheduler_type == Scheduler::Constant),
        "lr_scheduler_type",
        "is `constant`, which has no warm-up; take `constant_with_warmup`",
    );
}

fn adapter(job: &JobSpec, faults: &mut Faults) {
    let needs = "needs `lora`: only an adapter can be trained";
    faults.require(
        job.quantization.is_none() || job.lora.is_some(),
        "quantization",
        format!("{needs} on a quantised base"),
    );
    faults.require(job.adapter.is_none() || job.lora.is_some(), "adapter", format!("{needs} from an adapter on"));
    let Some(Lora { r, alpha, dropout, target_modules, .. }) = &job.lora else { return };
    faults.require((1..=1 << 16).contains(r), "lora.r", format!("is {r}; it must be 1 to 65536"));
    faults.require(alpha.is_finite() && *alpha > 0.0, "lora.alpha", format!("is {alpha}; it must be above 0"));
    faults.require((0.0..1.0).contains(dropout), "lora.dropout", format!("is {dropout}; it must be from 0 to below 1"));
    if let TargetModules::Names(names) = target_modules {
        let named = !names.is_empty() && names.iter().all(|name| !name.is_empty());
        faults.require(
            named,
            "lora.target_modules",
            "names nothing; list layers such as `q_proj`, or say `all-linear`",
        );
    }
}

fn measuring(job: &JobSpec, faults: &mut Faults) {
    let every =
        [("save_steps", job.save_steps), ("save_total_limit", job.save_total_limit), ("eval_steps", job.eval_steps)];
    for (param, steps) in every {
        faults.require(steps != Some(0), param, "is 0; give at least 1 or leave it out");
    }
    let measured = job.validation_file.is_some();
    faults.require(measured || job.eval_steps.is_none(), "eval_steps", "needs `validation_file` to measure on");
    if let Some(stopping) = job.early_stopping {
        faults.require(measured, "early_stopping", "needs `validation_file` to measure on");
        faults.require(stopping.patience > 0, "early_stopping.patience", "is 0; it must be at least 1");
        faults.finite(stopping.threshold, "early_stopping.threshold", 0.0..=f64::MAX);
    }
}

fn preferences(job: &JobSpec, faults: &mut Faults) {
    if job.method != Method::Dpo {
        return;
    }
    faults.require(job.beta.is_finite() && job.beta > 0.0, "beta", format!("is {}; it must be above 0", job.beta));
    faults.finite(job.label_smoothing, "label_smoothing", 0.0..=0.5);
    faults.require(
        job.label_smoothing == 0.0 || job.loss_type == DpoLoss::Sigmoid,
        "label_smoothing",
        "is defined for the `sigmoid` loss only",
    );
}

#[cfg(test)]
mod tests {
    use crate::JobSpec;
    use serde_json::{Value, json};

    fn job(more: Value) -> Value {
        let mut job = json!({"model": "m", "training_file": "t", "output": "o", "max_steps": 5});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    fn faults(more: Value) -> String {
        let spec = JobSpec::parse(job(more).to_string().as_bytes()).unwrap();
        spec.check().map_or_else(|invalid| invalid.to_string(), |_| String::new())
    }

    #[test]
    fn the_smallest_job_is_complete() {
        assert_eq!(faults(json!({})), "");
    }

    #[test]
    fn every_contradiction_is_named_with_what_would_be_right() {
        for (more, expected) in [
            (json!({"n_epochs": 1}), "`n_epochs`: stands beside `max_steps`"),
            (json!({"max_steps": null}), "`n_epochs`: nothing says how long"),
            (json!({"max_steps": 0}), "`max_steps`: is 0"),
            (json!({"batch_size": 0}), "`batch_size`: is 0"),
            (json!({"learning_rate": -1.0}), "`learning_rate`: is -1; it must be a number from 0 on"),
            (json!({"adam_beta2": 1.0}), "`adam_beta2`: is 1"),
            (json!({"warmup_ratio": 2.0}), "`warmup_ratio`: is 2"),
            (json!({"warmup_ratio": 0.5, "warmup_steps": 1}), "`warmup_ratio`: stands beside"),
            (json!({"warmup_steps": 1, "lr_scheduler_type": "constant"}), "take `constant_with_warmup`"),
            (json!({"quantization": "nf4"}), "`quantization`: needs `lora`"),
            (json!({"adapter": "a"}), "`adapter`: needs `lora`"),
            (json!({"lora": {"r": 0}}), "`lora.r`: is 0"),
            (json!({"lora": {"dropout": 1.0}}), "`lora.dropout`: is 1"),
            (json!({"lora": {"target_modules": []}}), "`lora.target_modules`: names nothing"),
            (json!({"early_stopping": {}}), "`early_stopping`: needs `validation_file`"),
            (json!({"eval_steps": 5}), "`eval_steps`: needs `validation_file`"),
            (json!({"method": "dpo", "packing": true}), "`packing`: is on"),
            (json!({"method": "dpo", "beta": 0.0}), "`beta`: is 0"),
            (json!({"method": "dpo", "loss_type": "ipo", "label_smoothing": 0.1}), "`label_smoothing`: is defined"),
        ] {
            let found = faults(more.clone());
            assert!(found.contains(expected), "{more}: {found}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let found = faults(json!({"max_steps": 0, "batch_size": 0, "lora": {"r": 0}}));
        assert_eq!(found.matches("is 0").count(), 3, "{found}");
    }

    #[test]
    fn unknown_and_misspelt_fields_are_refused_with_their_line() {
        let error = JobSpec::parse(job(json!({"learning_rat": 1})).to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field `learning_rat`") && error.contains("line 1"), "{error}");
        let error = JobSpec::parse(b"{}").unwrap_err().to_string();
        assert!(error.contains("missing field `model`"), "{error}");
    }

    #[test]
    fn words_stand_where_numbers_and_lists_could() {
        let spec = JobSpec::parse(
            job(json!({"batch_size": "auto", "lora": {"target_modules": "all-linear", "lora_alpha": 32}}))
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(spec.batch_size, crate::BatchSize::AUTO);
        assert_eq!(spec.lora.unwrap().scaling(), 4.0);
        assert!(JobSpec::parse(job(json!({"batch_size": "large"})).to_string().as_bytes()).is_err());
    }
}
