//! Configurations of jobs and steps do not hold what is known to break a training.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::facts::Config,
    recipe::{Trainer, Work},
};
use gap_contract::JobSpec;
use serde_json::{Map, Value};

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "configuration",
    otherwise: "no job or step of the recipe names a configuration",
    apply,
};

/// Deepest level of a configuration that is looked at.
const MAX_DEPTH: usize = 32;

fn apply(facts: &Facts, findings: &mut Findings) {
    for config in &facts.configs {
        let subject = Subject::config(&config.owner, &config.path);
        match &config.content {
            Err(reason) => findings.fail(subject, reason.clone(), "correct the file, or take it out of `configs`"),
            Ok(content) => {
                if is_a_job_of_our_trainer(facts, config) {
                    contract(findings, config, content);
                }
                for table in tables(content) {
                    lint(findings, config, table);
                }
                if findings.worst(&subject).is_none() {
                    findings.pass(subject, "nothing in it is known to break a training");
                }
            }
        }
    }
}

/// Whether it is the job file of a training by the appliance's own trainer.
fn is_a_job_of_our_trainer(facts: &Facts, config: &Config) -> bool {
    let owners = facts.jobs.iter().filter(|job| config.owner == format!("job {}", job.name));
    let mut works = owners.map(|job| &job.work);
    let is_own = works.any(|work| matches!(work, Work::Train(training) if training.trainer == Trainer::GapTrain));
    is_own && config.path.ends_with(".json")
}

/// The trainer refuses what the contract does: here it is told before anything crosses.
fn contract(findings: &mut Findings, config: &Config, content: &Value) {
    let subject = Subject::config(&config.owner, &config.path);
    let spec = serde_json::to_vec(content).map_err(|error| error.to_string());
    let spec = spec.and_then(|text| JobSpec::parse(&text).map_err(|error| error.to_string()));
    match spec.and_then(|spec| spec.check().map_err(|invalid| invalid.to_string())) {
        Ok(_) => {}
        Err(reason) => findings.fail(subject, reason, "correct the job file by the contract: docs/jobs.md"),
    }
}

/// Looks at one table of options: those of the Trainer's, whatever the file calls it.
fn lint(findings: &mut Findings, config: &Config, options: &Map<String, Value>) {
    let subject = || Subject::config(&config.owner, &config.path);
    let on = |key: &str| options.get(key).is_some_and(is_true);
    let text = |key: &str| options.get(key).and_then(Value::as_str);
    if on("load_best_model_at_end") {
        best_model(findings, &subject(), options);
    }
    if on("fp16") && on("bf16") {
        findings.fail(
            subject(),
            "`fp16` and `bf16` are both on, and at most one may be",
            "keep `bf16` on Ampere and newer",
        );
    }
    let shared = is_zero3(options) || options.get("fsdp").is_some_and(is_true);
    if let Some(map) = text("device_map") {
        let written = format!("`device_map: {map}`");
        if map == "meta" {
            let reason = format!("{written} loads no weights: Trainer.evaluate refuses a model on the meta device");
            findings.fail(subject(), reason, "take `device_map` out");
        } else if shared {
            let reason = format!("{written} and sharded weights exclude each other: parts stay on the meta device");
            findings.fail(subject(), reason, "take `device_map` out: the launcher places the weights");
        } else {
            let reason = format!("{written} leaves on the meta device what does not fit, and training stops there");
            findings.warn(subject(), reason, "take `device_map` out of trainings");
        }
    }
    if on("low_cpu_mem_usage") && is_zero3(options) {
        let reason = "`low_cpu_mem_usage` and DeepSpeed's stage 3 exclude each other: weights stay on the meta device";
        findings.fail(subject(), reason, "take `low_cpu_mem_usage` out");
    }
    if on("init_empty_weights") {
        let reason =
            "`init_empty_weights` makes a model on the meta device, which can be neither trained nor evaluated";
        findings.fail(subject(), reason, "load the weights");
    }
}

fn best_model(findings: &mut Findings, subject: &Subject, options: &Map<String, Value>) {
    if options.get("metric_for_best_model").is_none_or(Value::is_null) {
        let reason = "`load_best_model_at_end` without `metric_for_best_model`: the Trainer refuses it or, in some \
                      versions, silently takes the loss";
        findings.fail(subject.clone(), reason, "add `metric_for_best_model: eval_loss`, or another metric");
    }
    let evaluated = ["eval_strategy", "evaluation_strategy"].iter().find_map(|name| options.get(*name)?.as_str());
    let saved = options.get("save_strategy").and_then(Value::as_str).unwrap_or("steps");
    match evaluated {
        Some("steps") if saved == "steps" => saved_where_evaluated(findings, subject, options),
        Some(evaluated) if evaluated == saved || saved == "best" => {}
        found => {
            let reason = format!(
                "`load_best_model_at_end` needs `eval_strategy` and `save_strategy` to be the same; they are `{}` and `{saved}`",
                found.unwrap_or("no")
            );
            findings.fail(subject.clone(), reason, format!("write `eval_strategy: {saved}`"));
        }
    }
}

/// Only a checkpoint that was evaluated can be the best.
fn saved_where_evaluated(findings: &mut Findings, subject: &Subject, options: &Map<String, Value>) {
    let steps = |key: &str| options.get(key).and_then(Value::as_u64).filter(|steps| *steps > 0);
    let (Some(save), Some(evaluate)) = (steps("save_steps"), steps("eval_steps")) else { return };
    if !save.is_multiple_of(evaluate) {
        let reason = format!(
            "`load_best_model_at_end` needs `save_steps` to be a multiple of `eval_steps`; they are {save} and {evaluate}"
        );
        findings.fail(
            subject.clone(),
            reason,
            format!("write `save_steps: {}`", save.checked_next_multiple_of(evaluate).unwrap_or(evaluate)),
        );
    }
}

fn is_zero3(options: &Map<String, Value>) -> bool {
    let stage = |value: &Value| value.get("zero_optimization")?.get("stage")?.as_u64();
    let inline = options.get("deepspeed").and_then(stage);
    let own = options.get("zero_optimization").and_then(|zero| zero.get("stage")?.as_u64());
    let accelerate = options.get("zero_stage").and_then(Value::as_u64);
    [inline, own, accelerate].contains(&Some(3))
}

/// All tables in a configuration, the outermost first.
fn tables(content: &Value) -> Vec<&Map<String, Value>> {
    let (mut found, mut ahead) = (Vec::new(), vec![(content, 0)]);
    while let Some((value, depth)) = ahead.pop() {
        let next = depth + 1;
        match value {
            Value::Object(table) => {
                found.push(table);
                if next < MAX_DEPTH {
                    ahead.extend(table.values().rev().map(|value| (value, next)));
                }
            }
            Value::Array(items) if next < MAX_DEPTH => ahead.extend(items.iter().rev().map(|value| (value, next))),
            _ => {}
        }
    }
    found
}

/// All values of `key`, wherever it is.
pub(super) fn values<'c>(content: &'c Value, key: &'c str) -> impl Iterator<Item = &'c Value> {
    tables(content).into_iter().filter_map(move |table| table.get(key))
}

/// Whether `key` is `value` somewhere.
pub(super) fn is_set(content: &Value, key: &str, value: &Value) -> bool {
    values(content, key).any(|found| found == value)
}

/// Whether an option is switched on: true, or a text that is no kind of no.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::String(text) => !matches!(text.to_ascii_lowercase().as_str(), "" | "no" | "false" | "off" | "none"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
        Value::Number(_) | Value::Null => false,
    }
}
