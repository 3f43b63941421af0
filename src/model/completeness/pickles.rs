//! Weights that are Python pickles: refused unless allowed, and never if they import what does harm.

use super::Inspector;
use crate::{
    model::{
        Format, format_of,
        pickle::{self, Danger, Import},
    },
    recipe::PicklePolicy,
};

/// How many imports are named.
const NAMED: usize = 12;

impl Inspector<'_> {
    /// Looks into every pickle.
    pub(super) fn pickles(&mut self, policy: &PicklePolicy) {
        let is_pickle = |path: &&str| format_of(path) == Some(Format::Pickle) && self.files.is_here(path);
        let paths: Vec<String> = self.files.paths().filter(is_pickle).map(str::to_owned).collect();
        for path in paths {
            let Some(file) = self.files.open(&path) else { continue };
            match file.map_err(Into::into).and_then(pickle::scan) {
                Ok(imports) => self.pickle(&path, imports.iter().collect(), policy),
                Err(error) => {
                    let remedy =
                        "do not load it: take the weights as safetensors, or leave the file out with `exclude`";
                    self.fail(Some(&path), format!("a pickle that cannot be followed: {error}"), remedy);
                }
            }
        }
    }

    fn pickle(&mut self, path: &str, imports: Vec<&Import>, policy: &PicklePolicy) {
        let of =
            |danger: Danger| imports.iter().copied().filter(|import| import.danger() == danger).collect::<Vec<_>>();
        let (dangerous, unknown) = (of(Danger::Dangerous), of(Danger::Unknown));
        if !dangerous.is_empty() {
            let what = format!("a pickle that runs code when it is loaded: it imports {}", listed(&dangerous));
            self.fail(Some(path), what, "do not load it, and ask where it comes from; nothing allows it");
            return;
        }
        let PicklePolicy::Allow(also) = policy else {
            let what = match imports.is_empty() {
                true => "a pickle, which could run code when it is loaded; it imports nothing".to_owned(),
                false => format!("a pickle, which could run code when it is loaded; it imports {}", listed(&imports)),
            };
            let remedy = "take the weights as safetensors, or write `allow_pickle = true` if you trust their source";
            self.fail(Some(path), what, remedy);
            return;
        };
        let new: Vec<&Import> = unknown.into_iter().filter(|import| !also.contains(&import.to_string())).collect();
        match new.first() {
            Some(first) => {
                let what = format!("a pickle that imports what is not known to be harmless: {}", listed(&new));
                self.fail(Some(path), what, format!("if you know it, write `allow_pickle = [\"{first}\", …]`"));
            }
            None => self.warn(Some(path), "weights in a pickle, allowed by the recipe", "prefer safetensors"),
        }
    }
}

fn listed(imports: &[&Import]) -> String {
    let named: Vec<String> = imports.iter().take(NAMED).map(ToString::to_string).collect();
    match imports.len().checked_sub(NAMED).filter(|&more| more > 0) {
        Some(more) => format!("{} and {more} more", named.join(", ")),
        None => named.join(", "),
    }
}
