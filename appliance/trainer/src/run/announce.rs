//! What a run says at its beginning.

use super::identity::name;
use crate::{checkpoint::State, data::Examples, error::Failed, journal::Journal, plan::Plan};
use gap_contract::{Job, Level, Topic};
use serde_json::{Value, json};

pub(super) fn announce(plan: &Plan, job: &Job, from: Option<&State>, journal: &mut Journal) -> Result<(), Failed> {
    let (topic, message) = match from {
        None => (
            Topic::Started,
            format!("{} steps, {} examples, batches of {}", plan.total, plan.training.sequences.len(), plan.batch),
        ),
        Some(state) => (Topic::Resumed, format!("goes on after step {} of {}", state.step, plan.total)),
    };
    let step = from.map_or(0, |state| state.step);
    journal.event(
        Level::Info,
        topic,
        message,
        json!({ "steps": plan.total, "step": step, "batch_size": plan.batch }),
    )?;
    if let Some(before) = from.map(|state| state.learning_rate)
        && (before - job.learning_rate).abs() > f64::EPSILON * before.abs()
    {
        let message = format!("from step {} on the learning rate is {}; it was {before}", step + 1, job.learning_rate);
        journal.event(
            Level::Info,
            Topic::Message,
            message,
            json!({ "step": step, "learning_rate": job.learning_rate, "before": before }),
        )?;
    }
    let estimate = json!({
        "weights": plan.estimate.weights, "training": plan.estimate.training, "activations": plan.estimate.activations,
        "total": plan.estimate.total(), "available": plan.available, "batch_size": plan.batch,
    });
    let message = format!("needs about {} MiB of {} MiB", plan.estimate.total() >> 20, plan.available >> 20);
    journal.event(Level::Info, Topic::Estimate, message, estimate)?;
    let files = [
        (&job.training_file, Some(&plan.training)),
        (job.validation_file.as_ref().unwrap_or(&job.training_file), plan.validation.as_ref()),
    ];
    for (path, examples) in files.into_iter().filter_map(|(path, examples)| Some((path, examples?))) {
        if examples.truncated + examples.left_out > 0 {
            let message = format!(
                "of {} examples in {}, {} were cut off at {} tokens ({} tokens lost) and {} left out, because nothing to train on was left",
                examples.rows,
                name(path),
                examples.truncated,
                job.max_length,
                examples.cut_tokens,
                examples.left_out
            );
            journal.event(Level::Warn, Topic::Data, message, counts(examples))?;
        }
    }
    Ok(())
}

fn counts(examples: &Examples) -> Value {
    json!({
        "examples": examples.rows, "truncated": examples.truncated, "left_out": examples.left_out,
        "cut_tokens": examples.cut_tokens,
    })
}
