//! How the learning rate runs: the formulas of Transformers' schedulers.

use gap_contract::{Job, Scheduler};

/// Steps over which the rate rises.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked shares of a number of steps"
)]
pub fn warmup(job: &Job, total: u64) -> u64 {
    match (job.warmup_steps, job.warmup_ratio) {
        (Some(steps), _) => steps,
        (None, Some(ratio)) => (ratio * total as f64).ceil() as u64,
        (None, None) => 0,
    }
}

/// The rate of step `step`, counted from 0, of `total`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "steps are far below 2^52")]
pub fn rate(job: &Job, step: u64, total: u64) -> f64 {
    let warmup = warmup(job, total);
    let factor = if job.lr_scheduler_type != Scheduler::Constant && step < warmup {
        step as f64 / warmup.max(1) as f64
    } else {
        let rest = total.saturating_sub(warmup).max(1) as f64;
        match job.lr_scheduler_type {
            Scheduler::Constant | Scheduler::ConstantWithWarmup => 1.0,
            Scheduler::Linear => total.saturating_sub(step) as f64 / rest,
            Scheduler::Cosine => {
                let done = step.saturating_sub(warmup) as f64 / rest;
                (0.5 * (1.0 + (std::f64::consts::PI * done).cos())).max(0.0)
            }
        }
    };
    job.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::rate;
    use gap_contract::{Job, JobSpec};

    fn job(more: &str) -> Job {
        let json = format!(
            r#"{{"model": "m", "training_file": "t", "output": "o", "max_steps": 10, "learning_rate": 1.0{more}}}"#
        );
        JobSpec::parse(json.as_bytes()).unwrap().check().unwrap()
    }

    /// What `transformers.get_scheduler` gives.
    #[test]
    fn rates_are_those_of_transformers() {
        let rates =
            |more: &str| (0..10).map(|step| (rate(&job(more), step, 10) * 1e4).round() / 1e4).collect::<Vec<_>>();
        assert_eq!(rates(r#", "warmup_steps": 2"#), [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        assert_eq!(
            rates(r#", "warmup_ratio": 0.15, "lr_scheduler_type": "cosine""#),
            [0.0, 0.5, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
        );
        assert_eq!(rates(r#", "lr_scheduler_type": "constant""#), [1.0; 10]);
        assert_eq!(
            rates(r#", "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4"#)[..5],
            [0.0, 0.25, 0.5, 0.75, 1.0]
        );
    }
}
