//! Models as a recipe asks for them.

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Longest name of an owner or a repository on a hub, in characters.
const REPO_PART_MAX: usize = 96;

/// Weights and everything beside them, from a hub or from a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayer {
    /// Where it comes from.
    pub source: ModelSource,
    /// Globs of the files to take; all that the model needs when empty.
    pub include: Vec<String>,
    /// Globs of files to leave out.
    pub exclude: Vec<String>,
    /// Whether weights may be pickled.
    pub allow_pickle: PicklePolicy,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A repository of a hub that speaks Hugging Face's protocol.
    Hub(HubRepository),
    /// A directory on this machine.
    Directory {
        /// The directory of the file that names it.
        base: PathBuf,
        /// The path as the recipe has it: relative to that directory, without `..`.
        path: String,
        /// The name under which `from_pretrained` finds it, besides its path.
        name: Option<RepoName>,
    },
}

/// A repository of a hub, and which state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRepository {
    /// The repository.
    pub repo: RepoName,
    /// Branch, tag or commit.
    pub revision: String,
    /// Base address of the hub; environment or the usual hub when absent.
    pub endpoint: Option<String>,
}

impl ModelLayer {
    /// The name under which `from_pretrained` finds the model, if it has one.
    pub const fn repo(&self) -> Option<&RepoName> {
        match &self.source {
            ModelSource::Hub(hub) => Some(&hub.repo),
            ModelSource::Directory { name, .. } => name.as_ref(),
        }
    }
}

/// What becomes of weights that are Python pickles, which run code when they are loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PicklePolicy {
    /// They are refused.
    #[default]
    Refuse,
    /// They are taken if all that they import is known to be harmless, or is among these (`module.name`).
    Allow(Vec<String>),
}

/// Name of a repository on a hub: `owner/name`, or `name` alone for the oldest ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoName(String);

/// What the name of a repository may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`owner/name` of letters, digits, `-`, `_` and `.`, each at most 96 long, without `--` and `..`, and beginning and \
     ending with a letter, digit or `_`"
)]
pub struct RepoNameRule;

impl RepoName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`RepoNameRule`] if it is not allowed.
    pub fn new(text: &str) -> Result<Self, RepoNameRule> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits = |part: &&str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            part.len() <= REPO_PART_MAX
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && edge(part.chars().next())
                && edge(part.chars().next_back())
                && !part.contains("--")
                && !part.contains("..")
        };
        match parts.len() <= 2 && parts.iter().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(RepoNameRule),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its folder in a Hugging Face cache: `models--owner--name`.
    pub fn cache_folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RepoName {
    type Error = RepoNameRule;

    fn try_from(text: String) -> Result<Self, RepoNameRule> {
        Self::new(&text)
    }
}

impl From<RepoName> for String {
    fn from(name: RepoName) -> Self {
        name.0
    }
}

/// Whether a text can be a revision: a branch, a tag, a commit or a ref such as `refs/pr/1`.
pub fn is_revision(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= 255 && text.chars().all(allowed) && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for good in ["gpt2", "Qwen/Qwen2.5-7B-Instruct", "a_b/_c"] {
            assert_eq!(RepoName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "/", "a/", "a/b/c", "a/..", "../a", "a--b/c", "a/b?x", "a/.b", "a b/c", "a/b-", &"x".repeat(97)]
        {
            assert!(RepoName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(RepoName::new("org/name").unwrap().cache_folder(), "models--org--name");
    }

    #[test]
    fn revisions_are_names_of_git() {
        for good in ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "../main", "a b", "a?b", "x.lock", "a//b", ".a"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }
}
