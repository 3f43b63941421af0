//! The rules: one a file, in the order of the checklist.

mod acceptance;
mod architecture;
mod configuration;
mod cuda_libraries;
mod data;
mod dependencies;
mod distributed;
mod driver;
mod gpu_memory;
mod hyperparameters;
mod licences;
mod main_memory;
mod model_files;
mod monitoring;
mod network;
mod offline;
mod platform_tags;
mod precision;
mod remedies;
mod secrets;
mod serving;
mod splits;
mod storage;
#[cfg(test)]
mod tests;
mod tracking;
mod training_stack;
mod tried;

use super::{
    facts::Facts,
    report::{Findings, Group, Report, Subject},
};

/// A rule: adds lines to the findings; where it adds none, nothing in the recipe falls under it.
pub(super) struct Rule {
    group: Group,
    name: &'static str,
    /// What it means that nothing falls under it.
    otherwise: &'static str,
    apply: fn(&Facts, &mut Findings),
}

const RULES: [Rule; 28] = [
    gpu_memory::RULE,
    main_memory::RULE,
    storage::RULE,
    network::RULE,
    monitoring::RULE,
    driver::RULE,
    architecture::RULE,
    precision::RULE,
    dependencies::RULE,
    training_stack::RULE,
    platform_tags::RULE,
    cuda_libraries::RULE,
    serving::RULE,
    tracking::RULE,
    distributed::RULE,
    configuration::RULE,
    hyperparameters::RULE,
    offline::RULE,
    tried::RULE,
    secrets::RULE,
    data::RULE,
    splits::RULE,
    model_files::WEIGHTS,
    model_files::TOKENIZER,
    model_files::CONFIGURATION,
    licences::RULE,
    licences::TERMS,
    acceptance::RULE,
];

/// Works the checklist out.
pub fn check(facts: &Facts) -> Report {
    let lines = RULES.iter().flat_map(|rule| {
        let mut findings = Findings::new(rule.group, rule.name);
        (rule.apply)(facts, &mut findings);
        if findings.is_empty() {
            findings.pass(Subject::RECIPE, rule.otherwise);
        }
        findings.into_lines()
    });
    Report::new(&facts.name, &facts.version, lines.collect())
}
