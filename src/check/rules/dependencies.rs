//! Everything that is in an image finds what it requires there.

use super::{Facts, Findings, Group, Rule, Subject, cuda_libraries::is_cudnn, training_stack};
use crate::check::{
    facts::{Image, Wheel},
    python::environment,
};
use pep508_rs::{ExtraName, MarkerEnvironment, PackageName, Requirement, VerbatimUrl, VersionOrUrl};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "dependencies",
    otherwise: "no image of the recipe holds Python wheels",
    apply,
};

fn apply(facts: &Facts, findings: &mut Findings) {
    for layer in &facts.unlocked {
        let reason = "what is in it is not known: the lock has no rows for it";
        findings.unresolved(Subject::layer(layer), reason, "run `gapimage lock`");
    }
    for image in facts.images.iter().filter(|image| image.holds_wheels()) {
        let subject = Subject::image(&image.name);
        let Some(python) = &image.python else {
            let reason = "it holds wheels, and no Python that is known";
            findings.unresolved(subject, reason, "add `python3` to a `debian` layer of the image");
            continue;
        };
        let Some(environment) = environment(python) else { continue };
        // What another rule tells is not told twice.
        let told = training_stack::absent(facts, image);
        let missing = missing(image, &environment, &told);
        if missing.is_empty() {
            let count = image.wheels.len();
            findings
                .pass(subject.clone(), format!("each of {count} wheels finds what it requires, for Python {python}"));
        }
        for (what, wanted) in missing {
            let by = wanted.into_iter().collect::<Vec<_>>().join(", ");
            let remedy = "add it to the requirements, and lock again";
            findings.fail(subject.clone(), format!("{what} (required by {by})"), remedy);
        }
    }
}

/// What is missing or too old, and who wants it.
fn missing(
    image: &Image,
    environment: &MarkerEnvironment,
    told: &BTreeSet<&str>,
) -> BTreeMap<String, BTreeSet<String>> {
    let extras = extras(image, environment);
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for wheel in &image.wheels {
        let asked = extras.get(&wheel.name).map(Vec::as_slice).unwrap_or_default();
        for requirement in applicable(wheel, asked, environment) {
            let name = requirement.name.as_ref();
            if told.contains(name) || (is_cudnn(name) && image.wheel(name).is_none()) {
                continue;
            }
            if let Some(what) = lacks(image, requirement) {
                missing.entry(what).or_default().insert(wheel.name.to_string());
            }
        }
    }
    missing
}

/// The extras of each wheel that another asks for, until no more come.
fn extras(image: &Image, environment: &MarkerEnvironment) -> BTreeMap<PackageName, Vec<ExtraName>> {
    let mut extras: BTreeMap<PackageName, Vec<ExtraName>> = BTreeMap::new();
    loop {
        let before: usize = extras.values().map(Vec::len).sum();
        for wheel in &image.wheels {
            let asked = extras.get(&wheel.name).cloned().unwrap_or_default();
            for requirement in applicable(wheel, &asked, environment) {
                let known = extras.entry(requirement.name.clone()).or_default();
                let new = requirement.extras.iter().filter(|extra| !known.contains(extra)).cloned().collect::<Vec<_>>();
                known.extend(new);
            }
        }
        if extras.values().map(Vec::len).sum::<usize>() == before {
            return extras;
        }
    }
}

fn applicable<'w>(
    wheel: &'w Wheel,
    extras: &[ExtraName],
    environment: &MarkerEnvironment,
) -> impl Iterator<Item = &'w Requirement<VerbatimUrl>> {
    wheel.requires.iter().filter(move |requirement| requirement.evaluate_markers(environment, extras))
}

/// What an image lacks of a requirement.
fn lacks(image: &Image, requirement: &Requirement<VerbatimUrl>) -> Option<String> {
    let name = requirement.name.as_ref();
    let Some(version) = image.python_package(name) else {
        return Some(format!("`{name}` is not there"));
    };
    match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(wanted)) if !wanted.contains(&version) => {
            Some(format!("`{name}` is {version}, and {name}{wanted} is wanted"))
        }
        _ => None,
    }
}
