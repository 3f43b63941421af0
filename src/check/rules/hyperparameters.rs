//! What a training's configuration says agrees with the recipe, by which its memory is computed, and is within what is
//! known to work.

use super::{
    Facts, Findings, Group, Rule, Subject,
    configuration::{is_true, values},
};
use crate::{
    check::facts::Config,
    recipe::{Job, Method, Training, Work},
};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "hyperparameters",
    otherwise: "no job of the recipe trains by a configuration",
    apply,
};

/// Keys that say what `[job.NAME.train]` says, as trainers call them, and what the recipe says.
type Pair = (&'static [&'static str], &'static str, fn(&Training) -> u64);

const PAIRS: [Pair; 4] = [
    (&["per_device_train_batch_size", "micro_batch_size", "batch_size"], "batch", |training| training.batch),
    (&["gradient_accumulation_steps"], "accumulate", |training| training.accumulate),
    (&["max_seq_length", "max_length", "sequence_len", "cutoff_len"], "length", |training| training.length),
    (&["lora_r", "lora_rank", "r"], "rank", |training| match &training.method {
        Method::Full => 0,
        Method::Lora(adapter) | Method::Qlora(adapter) => adapter.rank,
    }),
];

/// Sequences in one step: below, training is unsteady; above, most of them add little.
const STEADY: std::ops::RangeInclusive<u64> = 8..=512;
/// Learning rates of adapters, and the highest of all weights.
const OF_ADAPTERS: std::ops::RangeInclusive<f64> = 5e-5..=5e-4;
const OF_ALL: f64 = 1e-4;
/// Data sets from this size on are gone through a few times only.
const LARGE: u64 = 50_000;
/// Most times that a large and any data set is gone through.
const EPOCHS_OF_LARGE: f64 = 3.0;
const EPOCHS: f64 = 10.0;
/// Longest warm-up, as a part of all steps.
const WARMUP: f64 = 0.1;

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let Work::Train(training) = &job.work else { continue };
        let owner = format!("job {}", job.name);
        for (config, content) in facts.configs_of(&owner) {
            let subject = Subject::config(&config.owner, &config.path);
            agreement(findings, config, content, training);
            learning(findings, config, content, training);
            epochs(findings, facts, config, content, training);
            watching(findings, facts, config, content, training);
            if findings.worst(&subject).is_none() {
                findings.pass(subject, "it says what the recipe says, and nothing unusual");
            }
        }
        steadiness(findings, facts, job, training);
    }
}

fn subject(config: &Config) -> Subject {
    Subject::config(&config.owner, &config.path)
}

/// Memory is computed from the recipe: a configuration that says otherwise makes it wrong.
fn agreement(findings: &mut Findings, config: &Config, content: &Value, training: &Training) {
    for (keys, name, of) in PAIRS {
        let wanted = of(training);
        for key in keys {
            let other = values(content, key).filter_map(Value::as_u64).find(|found| *found != wanted && wanted > 0);
            if let Some(found) = other {
                let reason =
                    format!("`{key}: {found}`, and the recipe says `{name} = {wanted}`, by which memory is computed");
                findings.warn(subject(config), reason, "make both the same");
            }
        }
    }
    let checkpointing = values(content, "gradient_checkpointing").find_map(Value::as_bool);
    if checkpointing == Some(false) && training.checkpointing {
        let reason =
            "`gradient_checkpointing: false`, and the recipe says `checkpointing = true`, by which memory is computed";
        findings.warn(subject(config), reason, "make both the same");
    }
}

fn learning(findings: &mut Findings, config: &Config, content: &Value, training: &Training) {
    let rates = values(content, "learning_rate").filter_map(number);
    for rate in rates {
        let is_usual = match training.method {
            Method::Full => rate <= OF_ALL,
            Method::Lora(_) | Method::Qlora(_) => OF_ADAPTERS.contains(&rate),
        };
        if !is_usual {
            let reason = format!(
                "`learning_rate: {rate}` is unusual for `method = \"{}\"`",
                match training.method {
                    Method::Full => "full",
                    Method::Lora(_) => "lora",
                    Method::Qlora(_) => "qlora",
                }
            );
            findings.warn(subject(config), reason, "1e-4 to 2e-4 is usual for adapters, 5e-5 for all weights");
        }
    }
    if let Some(ratio) = values(content, "warmup_ratio").filter_map(number).find(|ratio| *ratio > WARMUP) {
        let reason = format!("`warmup_ratio: {ratio}` warms up for more than a tenth of the training");
        findings.warn(subject(config), reason, "0.03 to 0.1 is usual");
    }
}

fn epochs(findings: &mut Findings, facts: &Facts, config: &Config, content: &Value, training: &Training) {
    let records =
        training.datasets.iter().filter_map(|name| Some(facts.dataset(name)?.card.as_ref()?.records)).sum::<u64>();
    let most = if records >= LARGE { EPOCHS_OF_LARGE } else { EPOCHS };
    let epochs = ["num_train_epochs", "num_epochs", "n_epochs"].into_iter().flat_map(|key| values(content, key));
    if let Some(epochs) = epochs.filter_map(number).find(|epochs| *epochs > most) {
        let reason =
            format!("{records} records are gone through {epochs} times: models memorise what they see so often");
        findings.warn(subject(config), reason, format!("at most {most} is usual for so many records"));
    }
}

/// Without a look at the validation part nobody sees that a model memorises.
fn watching(findings: &mut Findings, facts: &Facts, config: &Config, content: &Value, training: &Training) {
    let held_back = training
        .datasets
        .iter()
        .filter_map(|name| facts.dataset(name)?.card.as_ref())
        .any(|card| card.splits.get("validation").is_some_and(|count| *count > 0));
    let is_trainer_s = values(content, "learning_rate").next().is_some();
    let watched = ["eval_strategy", "evaluation_strategy", "eval_steps", "val_set_size", "validation_file"];
    let is_watched =
        watched.into_iter().flat_map(|key| values(content, key)).any(|value| is_true(value) || value.is_number());
    if held_back && is_trainer_s && !is_watched {
        let reason = "it never measures on the validation part, so nobody sees when the model begins to memorise";
        findings.warn(subject(config), reason, "write `eval_strategy: steps`");
    }
}

fn steadiness(findings: &mut Findings, facts: &Facts, job: &Job, training: &Training) {
    let gpus = facts
        .target
        .as_ref()
        .filter(|target| target.gpu.is_some())
        .map_or(1, |target| u64::from(job.gpus.unwrap_or(target.count)) * u64::from(target.nodes));
    let step = training.batch.saturating_mul(training.accumulate).saturating_mul(gpus.max(1));
    if !STEADY.contains(&step) {
        let reason = format!("each step is of {step} sequences");
        let remedy = "change `accumulate`, which takes no memory: 32 to 128 works well";
        findings.warn(Subject::job(&job.name), reason, remedy);
    }
}

/// A number, or a text that is one: YAML takes `2e-4` for a text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number: &f64| number.is_finite())
}
