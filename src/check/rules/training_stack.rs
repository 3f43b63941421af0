//! What trains is there, and new enough: all that the Trainer of Transformers needs, or the appliance's own trainer.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::facts::Image,
    recipe::{Method, Optimizer, Sharding, Trainer, Training, Work},
};
use pep440_rs::Version;
use std::collections::BTreeSet;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "training-stack",
    otherwise: "no image of the recipe holds Transformers, and no job trains",
    apply,
};

/// What the Trainer requires, with the least version.
const REQUIRED: [(&str, &str); 9] = [
    ("transformers", "0"),
    ("torch", "2.2"),
    ("accelerate", "1.1.0"),
    ("datasets", "2.15.0"),
    ("safetensors", "0.4.3"),
    ("tokenizers", "0.22.0"),
    ("huggingface-hub", "1.2.1"),
    ("numpy", "1.17"),
    ("tqdm", "4.27"),
];
/// What may be there besides, with the least version.
const OPTIONAL: [(&str, &str); 5] =
    [("evaluate", "0.4.6"), ("peft", "0.18.0"), ("deepspeed", "0.9.3"), ("ray", "2.7.0"), ("trl", "0")];
/// The least Python for Transformers.
const PYTHON: (&str, &str) = ("Python", "3.10");
/// The packages whose least version depends on that of Transformers: from Transformers 5 on the hub's client is of its
/// new generation. Earlier ones require what their own metadata says.
const OF_TRANSFORMERS_5: [&str; 2] = ["huggingface-hub", "tokenizers"];

fn apply(facts: &Facts, findings: &mut Findings) {
    own_trainer(facts, findings);
    for image in &facts.images {
        let trains = trainings(facts, image).next().is_some();
        if !trains && image.python_package("transformers").is_none() {
            continue;
        }
        let subject = Subject::image(&image.name);
        python(findings, &subject, image);
        let needed = needed(facts, image);
        let table = REQUIRED.iter().chain(&OPTIONAL).chain(&[("bitsandbytes", "0")]);
        for (name, least) in table {
            package(findings, &subject, image, name, least, needed.contains(name));
        }
        if findings.worst(&subject).is_none() {
            let what = if trains { "trained with" } else { "used" };
            findings.pass(subject, format!("all that Transformers is {what} is there and new enough"));
        }
    }
}

/// The appliance's own trainer is a program in the image. It trains on one device, with AdamW.
fn own_trainer(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let (Work::Train(training), Some(image)) = (&job.work, facts.image(&job.image)) else { continue };
        if training.trainer != Trainer::GapTrain {
            continue;
        }
        let (subject, name) = (Subject::job(&job.name), training.trainer.name());
        if !image.programs.iter().any(|program| program == name) {
            let reason = format!("it trains with `{name}`, which is not in the image `{}`", image.name);
            findings.fail(subject, reason, format!("add a `cargo` layer with the package `{name}` to the image"));
        } else if training.optimizer != Optimizer::AdamW || training.sharding != Sharding::Ddp {
            let reason = format!("`{name}` knows no optimizer but AdamW, and shares nothing among GPUs");
            findings.fail(subject, reason, "take `optimizer` and `sharding` out, or another `trainer`");
        } else {
            findings.pass(subject, format!("`{name}` is in the image `{}`", image.name));
        }
    }
}

/// The trainings by the Trainer of Transformers in an image.
fn trainings<'f>(facts: &'f Facts, image: &'f Image) -> impl Iterator<Item = &'f Training> {
    let jobs = facts.jobs.iter().filter(|job| job.image == image.name);
    let trainings = jobs.filter_map(|job| match &job.work {
        Work::Train(training) => Some(training),
        Work::Serve(_) | Work::Other => None,
    });
    trainings.filter(|training| matches!(training.trainer, Trainer::Transformers | Trainer::Trl))
}

/// The distributions that the trainings in an image need.
fn needed(facts: &Facts, image: &Image) -> BTreeSet<&'static str> {
    let mut needed = BTreeSet::new();
    for training in trainings(facts, image) {
        needed.extend(REQUIRED.iter().map(|(name, _)| *name));
        needed.extend(wanted_by(training));
    }
    needed
}

/// Those of them that are not there.
pub(super) fn absent(facts: &Facts, image: &Image) -> BTreeSet<&'static str> {
    let mut absent = needed(facts, image);
    absent.retain(|name| image.python_package(name).is_none());
    absent
}

fn python(findings: &mut Findings, subject: &Subject, image: &Image) {
    let (name, least) = PYTHON;
    if let Some(version) = image.python.as_ref().filter(|version| is_below(version, least)) {
        let reason = format!("{name} is {version}, and Transformers needs {least} or newer");
        findings.fail(subject.clone(), reason, "take the image's base from a newer suite");
    }
}

/// What a training needs besides the Trainer.
fn wanted_by(training: &Training) -> Vec<&'static str> {
    let mut wanted = Vec::new();
    if training.trainer == Trainer::Trl {
        wanted.push("trl");
    }
    if training.method != Method::Full {
        wanted.push("peft");
    }
    if matches!(training.method, Method::Qlora(_)) || training.optimizer == Optimizer::AdamW8bit {
        wanted.push("bitsandbytes");
    }
    if matches!(training.sharding, Sharding::Zero1 | Sharding::Zero2 | Sharding::Zero3) {
        wanted.push("deepspeed");
    }
    wanted
}

fn package(findings: &mut Findings, subject: &Subject, image: &Image, name: &str, least: &str, is_needed: bool) {
    match image.python_package(name) {
        None if is_needed => {
            let reason = format!("`{name}` is not there, and training needs {}", at_least(name, least));
            findings.fail(subject.clone(), reason, format!("add `{}` to the requirements", at_least(name, least)));
        }
        Some(version) if is_below(&version, least) => {
            if OF_TRANSFORMERS_5.contains(&name) && is_before_5(image) {
                return;
            }
            let reason = format!("`{name}` is {version}, and {} is needed", at_least(name, least));
            findings.fail(subject.clone(), reason, format!("ask for `{}`", at_least(name, least)));
        }
        _ => {}
    }
}

fn is_before_5(image: &Image) -> bool {
    image.python_package("transformers").is_some_and(|version| is_below(&version, "5.0.0.dev0"))
}

fn at_least(name: &str, least: &str) -> String {
    if least == "0" { name.to_owned() } else { format!("{name}>={least}") }
}

fn is_below(version: &Version, least: &str) -> bool {
    // A build for one CUDA (`+cu128`) counts as its version.
    least.parse::<Version>().is_ok_and(|least| version.clone().without_local() < least)
}
