//! Every wheel is built for the image's Python and C library.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::python::{Unfit, fits};

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "platform-tags",
    otherwise: "no image of the recipe holds Python wheels",
    apply,
};

fn apply(facts: &Facts, findings: &mut Findings) {
    for image in facts.images.iter().filter(|image| image.holds_wheels()) {
        let subject = Subject::image(&image.name);
        let (Some(python), Some(glibc)) = (&image.python, &image.glibc) else {
            let reason = "which Python and which glibc it has is not known";
            let remedy = "take both from `debian` layers of the image: `python3` and `libc6`";
            findings.unresolved(subject, reason, remedy);
            continue;
        };
        for wheel in &image.wheels {
            let of = format!("`{}` {}", wheel.name, wheel.version);
            if let Err(unfit) = fits(&wheel.tags, python, glibc) {
                let remedy = match &unfit {
                    Unfit::Glibc { .. } => "take a newer suite for the image's base, or an older version of the wheel",
                    Unfit::Python(_) | Unfit::Platform(_) => "lock again: the wheel was chosen for something else",
                };
                findings.fail(subject.clone(), format!("{of}: {unfit}"), remedy);
            }
        }
        if findings.worst(&subject).is_none() {
            let reason = format!("all {} wheels are for Python {python} and glibc {glibc}", image.wheels.len());
            findings.pass(subject, reason);
        }
    }
}
