//! Licences of models, data and packages are allowed, and terms on commercial use are named.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::{
        facts::Image,
        licence::{Commercial, Reading, Terms, is_allowed, read_all, refused, terms_of},
    },
    recipe::LicensePolicy,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RULE: Rule =
    Rule { group: Group::Models, name: "licences", otherwise: "nothing in the recipe has a licence", apply };
pub(super) const TERMS: Rule = Rule {
    group: Group::Models,
    name: "licence-terms",
    otherwise: "no licence in the recipe is known to gate or forbid commercial use",
    apply: terms,
};

/// Most names that are listed in one line.
const SHOWN: usize = 12;

/// Something with a licence.
struct Licensed<'f> {
    subject: Subject,
    name: &'f str,
    licenses: &'f [String],
}

fn apply(facts: &Facts, findings: &mut Findings) {
    let Some(policy) = &facts.licenses else {
        let reason = "the recipe does not say which licences may cross";
        findings.unresolved(Subject::RECIPE, reason, "add `[licenses]` with `allow = [\"Apache-2.0\", \"MIT\"]`");
        return;
    };
    for one in models_and_data(facts) {
        let clarified = policy.clarify.get(one.name).map(std::slice::from_ref);
        judge(findings, policy, &one, clarified.unwrap_or(one.licenses));
    }
    for image in &facts.images {
        packages(findings, policy, image);
    }
}

fn models_and_data(facts: &Facts) -> impl Iterator<Item = Licensed<'_>> {
    let models = facts.models.iter().map(|model| Licensed {
        subject: Subject::model(&model.name),
        name: &model.name,
        licenses: &model.licenses,
    });
    models.chain(facts.datasets.iter().map(|dataset| Licensed {
        subject: Subject::dataset(&dataset.name),
        name: &dataset.name,
        licenses: &dataset.licenses,
    }))
}

fn judge(findings: &mut Findings, policy: &LicensePolicy, one: &Licensed<'_>, licenses: &[String]) {
    match read_all(licenses) {
        Reading::Absent | Reading::Unknown(_) => {
            let said: Vec<String> = licenses.iter().map(|text| format!("`{}`", first_words(text))).collect();
            let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
            let reason = format!("of its licence it says {said}");
            let remedy = format!("read it, and write `[licenses] clarify = {{ \"{}\" = \"SPDX\" }}`", one.name);
            findings.unresolved(one.subject.clone(), reason, remedy);
        }
        Reading::Expression(expression) => {
            let refused = refused(policy, one.name, &expression);
            if refused.is_empty() {
                findings.pass(one.subject.clone(), format!("{expression} is allowed"));
            } else {
                let reason = format!("{expression} is not allowed");
                findings.fail(one.subject.clone(), reason, remedy(one.name));
            }
        }
    }
}

fn remedy(name: &str) -> String {
    format!("take another one; or, if it is allowed, add its licence to `allow`, or to `exceptions` for \"{name}\"")
}

fn first_words(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(60).collect()
}

/// The packages of an image by what stands in their way: one line for each licence, not for each package.
fn packages(findings: &mut Findings, policy: &LicensePolicy, image: &Image) {
    let mut refusals: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut unclear: BTreeSet<&str> = BTreeSet::new();
    let mut allowed = 0;
    let python = image.wheels.iter().map(|wheel| (wheel.name.as_ref(), wheel.licenses.as_slice()));
    let rust = image.crates.iter().map(|row| (row.name.as_str(), row.license.as_slice()));
    for (name, licenses) in python.chain(rust) {
        let clarified = policy.clarify.get(name).map(std::slice::from_ref);
        match read_all(clarified.unwrap_or(licenses)) {
            Reading::Absent | Reading::Unknown(_) => {
                unclear.insert(name);
            }
            Reading::Expression(expression) => {
                let refused = refused(policy, name, &expression);
                allowed += usize::from(refused.is_empty());
                refused.into_iter().for_each(|license| {
                    refusals.entry(license).or_default().insert(name);
                });
            }
        }
    }
    let all_of_main = is_allowed(policy, "", ALL_OF_MAIN);
    for package in &image.debian {
        let name = package.name.as_str();
        let clarified = policy.clarify.get(name).map(std::slice::from_ref);
        let licenses = clarified.unwrap_or(&package.licenses);
        let refused: Vec<&String> = licenses.iter().filter(|license| !is_allowed(policy, name, license)).collect();
        if (refused.is_empty() && !licenses.is_empty()) || (all_of_main && package.is_main) {
            allowed += 1;
            continue;
        }
        // Names of Debian's own say little by themselves; outside of `main` they may say anything.
        let says_little = |license: &&String| license.starts_with("LicenseRef-") && package.is_main;
        if refused.is_empty() || refused.iter().any(|license| *license == UNREADABLE || says_little(license)) {
            unclear.insert(name);
        }
        for license in refused.into_iter().filter(|license| *license != UNREADABLE && !says_little(license)) {
            refusals.entry(license.clone()).or_default().insert(name);
        }
    }
    report(findings, image, &refusals, &unclear, allowed);
}

/// Stands for everything that Debian holds to be free software (Debian Free Software Guidelines).
const ALL_OF_MAIN: &str = "LicenseRef-DFSG";
/// What stands for a Debian copyright file that no machine reads.
const UNREADABLE: &str = crate::source::debian::copyright::UNREADABLE;

fn report(
    findings: &mut Findings,
    image: &Image,
    refusals: &BTreeMap<String, BTreeSet<&str>>,
    unclear: &BTreeSet<&str>,
    allowed: usize,
) {
    let subject = Subject::image(&image.name);
    for (license, names) in refusals {
        let reason = format!("{license} is not allowed: {}", listed(names));
        let remedy = "take them out; or, if it is allowed, add it to `allow`, or to `exceptions` for each";
        findings.fail(subject.clone(), reason, remedy);
    }
    if !unclear.is_empty() {
        let reason =
            format!("no licence that a machine reads, or one that only Debian has a name for: {}", listed(unclear));
        let remedy =
            "read them, and name them under `[licenses] clarify`; or allow all of Debian's main: `LicenseRef-DFSG`";
        findings.unresolved(subject.clone(), reason, remedy);
    }
    if allowed > 0 {
        findings.pass(subject, format!("the licences of {allowed} packages are allowed"));
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn terms(facts: &Facts, findings: &mut Findings) {
    let clarified = |name: &str| facts.licenses.as_ref().and_then(|policy| policy.clarify.get(name));
    for one in models_and_data(facts) {
        let licenses = clarified(one.name).map_or(one.licenses, std::slice::from_ref);
        for (license, terms) in found(licenses) {
            let word = word(terms.commercial);
            let reason = format!("{license} {word} commercial use: {}", terms.sentence);
            findings.warn(one.subject.clone(), reason, "have whoever answers for it read the licence");
        }
    }
    for image in &facts.images {
        let mut by_license: BTreeMap<String, (Terms, BTreeSet<&str>)> = BTreeMap::new();
        for wheel in &image.wheels {
            for (license, terms) in found(&wheel.licenses) {
                by_license.entry(license).or_insert((terms, BTreeSet::new())).1.insert(wheel.name.as_ref());
            }
        }
        for (license, (terms, names)) in by_license {
            let (word, names) = (word(terms.commercial), listed(&names));
            let reason = format!("{license} {word} commercial use: {} ({names})", terms.sentence);
            findings.warn(Subject::image(&image.name), reason, "have whoever answers for it read the licence");
        }
    }
}

const fn word(commercial: Commercial) -> &'static str {
    match commercial {
        Commercial::Forbidden => "forbids",
        Commercial::Gated => "gates",
    }
}

/// Each licence of an expression that has terms.
fn found(licenses: &[String]) -> Vec<(String, Terms)> {
    let Reading::Expression(expression) = read_all(licenses) else { return Vec::new() };
    let names: BTreeSet<String> = expression.requirements().map(|one| one.req.to_string()).collect();
    names.into_iter().filter_map(|name| Some((name.clone(), terms_of(&name)?))).collect()
}
