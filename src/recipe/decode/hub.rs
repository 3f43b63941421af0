//! Decoding of repositories of a hub.

use super::checked;
use crate::recipe::{
    HubRepository, RepoName, name,
    problem::Problems,
    section::{Placed, Section},
};

/// The keys beside `hub`.
#[derive(Debug)]
pub(super) struct Keys<'v> {
    revision: Option<Placed<'v, &'v str>>,
    endpoint: Option<Placed<'v, &'v str>>,
}

impl<'v> Keys<'v> {
    /// Takes them from the section.
    pub fn take(section: &mut Section<'v>) -> Self {
        Self { revision: section.string("revision"), endpoint: section.string("endpoint") }
    }

    /// Notes those that are there although there is no `hub`.
    pub fn refuse(&self, problems: &Problems) {
        only_with(&[("revision", &self.revision), ("endpoint", &self.endpoint)], "hub", problems);
    }

    /// The repository that `hub` names.
    pub fn repository(&self, hub: &Placed<'_, &str>, problems: &Problems) -> Option<HubRepository> {
        let what =
            format!("the revision `{}`", self.revision.as_ref().map_or("main", |text| text.value).escape_debug());
        let revision = match &self.revision {
            Some(text) => checked(&what, text.value, text.at, name::revision, problems)?,
            None => "main",
        };
        let endpoint = match &self.endpoint {
            Some(text) => Some(checked("the address of the hub", text.value, text.at, name::endpoint, problems)?),
            None => None,
        };
        let (revision, endpoint) = (revision.to_owned(), endpoint.map(str::to_owned));
        Some(HubRepository { repo: repo_name(hub, problems)?, revision, endpoint })
    }
}

/// Notes the keys that mean something only beside `with`.
pub(super) fn only_with(keys: &[(&str, &Option<Placed<'_, &str>>)], with: &str, problems: &Problems) {
    for (key, value) in keys {
        if let Some(value) = value {
            let message = format!("`{key}` means nothing without `{with}`");
            problems.add_with_help(value.at, message, "take it out");
        }
    }
}

/// The name of a repository.
pub(super) fn repo_name(text: &Placed<'_, &str>, problems: &Problems) -> Option<RepoName> {
    match RepoName::new(text.value) {
        Ok(name) => Some(name),
        Err(rule) => {
            let message = format!("`{}` is no name of a repository", text.value.escape_debug());
            problems.add_with_help(text.at, message, format!("allowed: {rule}"));
            None
        }
    }
}

/// A list of globs.
pub(super) fn globs(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    section.strings(key).iter().map(|glob| glob.value.to_owned()).collect()
}
