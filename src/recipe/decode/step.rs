//! Decoding of `[step.NAME]`.

use super::job::{arguments, configs, image};
use crate::recipe::{
    Image, Step,
    problem::{At, Problems, nearest},
    section::Section,
    value::Value,
};
use std::collections::BTreeMap;

/// Steps that are decoded but not yet checked against each other.
#[derive(Default)]
pub(super) struct Steps<'t> {
    pub done: Vec<Step>,
    /// Names of all, those too that could not be decoded.
    names: Vec<&'t str>,
    /// What a step needs, and where that is written.
    needs: Vec<(&'t str, &'t str, &'t At)>,
}

impl<'t> Steps<'t> {
    /// Decodes the step `name`.
    pub fn add(&mut self, name: &'t str, value: &'t Value, images: &[Image], problems: &'t Problems) {
        self.names.push(name);
        let Some(mut section) = Section::open(format!("the step `{name}`"), value, problems) else { return };
        let image = image(&mut section, images, problems);
        let needs = section.strings("needs");
        self.needs.extend(needs.iter().map(|need| (name, need.value, need.at)));
        section.required("run", "[\"PROGRAM\"]");
        let run = arguments(&mut section);
        let configs = configs(&mut section, problems);
        section.finish();
        let needs = needs.iter().map(|need| need.value.to_owned()).collect();
        self.done.extend(image.map(|image| Step { name: name.to_owned(), image, needs, run, configs }));
    }

    /// Checks that every step that another needs is there, and that none waits for itself.
    pub fn check(&self, problems: &Problems) {
        for (step, need, at) in &self.needs {
            if self.names.contains(need) {
                continue;
            }
            let help = match nearest(need, self.names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add `[step.\"{}\"]`", need.escape_debug()),
            };
            problems.add_with_help(at, format!("the step `{step}` needs a step that is not there"), help);
        }
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (step, need, _) in &self.needs {
            needs.entry(step).or_default().push(need);
        }
        for (step, need, at) in &self.needs {
            if reaches(need, step, &needs) {
                let help = "a step comes after those that it needs";
                problems.add_with_help(at, format!("the step `{step}` waits for itself"), help);
                return;
            }
        }
    }
}

/// Whether `from` needs `to`, by way of others or not.
fn reaches(from: &str, to: &str, needs: &BTreeMap<&str, Vec<&str>>) -> bool {
    let (mut ahead, mut seen) = (vec![from], Vec::new());
    while let Some(step) = ahead.pop() {
        if step == to {
            return true;
        }
        if !seen.contains(&step) {
            seen.push(step);
            ahead.extend(needs.get(step).into_iter().flatten());
        }
    }
    false
}
