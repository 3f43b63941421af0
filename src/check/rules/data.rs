//! Data sets are clean, in a form that trainers know, and free of personal data.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::facts::{DataCard, Dataset},
    recipe::Work,
};

pub(super) const RULE: Rule = Rule { group: Group::Data, name: "data", otherwise: "the recipe has no data set", apply };

/// Forms of records that trainers know.
const FORMS: [&str; 4] = ["instruction", "conversation", "preference", "text"];

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let Work::Train(training) = &job.work else { continue };
        for name in training.datasets.iter().filter(|name| facts.dataset(name).is_none()) {
            let reason = format!("it trains on the data set `{name}`, which the recipe does not have");
            findings.fail(Subject::job(&job.name), reason, format!("add `[dataset.{name}]`, or correct the name"));
        }
    }
    for dataset in &facts.datasets {
        match &dataset.card {
            None => {
                let reason = "it was not looked through: there is no data card";
                findings.unresolved(Subject::dataset(&dataset.name), reason, "build the recipe, and check it again");
            }
            Some(card) => judge(findings, facts, dataset, card),
        }
    }
}

fn judge(findings: &mut Findings, facts: &Facts, dataset: &Dataset, card: &DataCard) {
    let subject = Subject::dataset(&dataset.name);
    if !FORMS.contains(&card.format.as_str()) {
        let reason = format!("its records are `{}`, a form that trainers do not know", card.format);
        findings.fail(subject.clone(), reason, format!("bring them into one of: {}", FORMS.join(", ")));
    }
    if card.records == 0 {
        findings.fail(subject.clone(), "it has no records", "look at the data card");
    }
    if card.left_out > 0 {
        let reason = format!("{} rows are no records and were left out", card.left_out);
        findings.warn(subject.clone(), reason, "the data card names the first of them: correct them");
    }
    match card.personal {
        Some(0) => {}
        Some(places) => {
            let reason = format!("{places} places hold personal data");
            findings.fail(subject.clone(), reason, "have them redacted");
        }
        None => findings.warn(subject.clone(), "nobody looked for personal data", "have it looked for and redacted"),
    }
    match card.duplicates {
        Some(0) => {}
        Some(twice) => {
            let reason = format!("{twice} of {} records are there twice, or nearly", card.records);
            findings.warn(subject.clone(), reason, "have duplicates left out: models memorise them");
        }
        None => findings.warn(subject.clone(), "nobody looked for duplicates", "have them looked for and left out"),
    }
    longest(findings, facts, dataset, card);
    if findings.worst(&subject).is_none() {
        findings.pass(subject, format!("{} records, `{}`, no duplicates, no personal data", card.records, card.format));
    }
}

/// Records that are longer than what is trained on are cut.
fn longest(findings: &mut Findings, facts: &Facts, dataset: &Dataset, card: &DataCard) {
    for job in &facts.jobs {
        let Work::Train(training) = &job.work else { continue };
        let longer = card.longest.filter(|longest| *longest > training.length);
        if let Some(longest) = longer.filter(|_| training.datasets.contains(&dataset.name)) {
            let reason = format!(
                "its longest record has {longest} tokens, and the job `{}` cuts at {}",
                job.name, training.length
            );
            findings.warn(Subject::dataset(&dataset.name), reason, "raise `length`, or split long records");
        }
    }
}
