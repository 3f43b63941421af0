//! Talking to a hub.

use super::{Endpoint, GitId, ModelError, Token, api::Revision, endpoint::Withheld};
use crate::{
    recipe::RepoName,
    source::http::{Access, Client, HttpError},
};

/// Longest answer about a revision that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// What a repository of a hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of a hub.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'r> {
    /// What it holds: a model and a data set may have the same name.
    pub kind: RepoKind,
    /// Its name.
    pub name: &'r RepoName,
}

impl Repository<'_> {
    /// Where questions about it go, below the hub's address.
    fn api(self) -> String {
        let kind = match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        format!("api/{kind}/{}", self.name)
    }

    /// Where a file of a commit lies, below the hub's address.
    pub(super) fn file(self, commit: &GitId, path: &str) -> String {
        let above = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!("{above}{}/resolve/{commit}/{}", self.name, escaped(path, "/"))
    }
}

/// A hub, and who asks it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    endpoint: Endpoint,
    sent: Sent,
}

/// What the hub gets of the user's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// There is none.
    Nothing,
    /// The token itself.
    Token,
    /// There is one, but it is not for this hub.
    Withheld(Withheld),
}

impl Hub {
    /// The hub at `endpoint`. The token goes to that server only.
    ///
    /// # Errors
    /// [`ModelError::Token`] if the token cannot be sent.
    pub fn new(client: &Client, endpoint: Endpoint, token: Option<&Token>) -> Result<Self, ModelError> {
        let Some(token) = token else { return Ok(Self::without(client, endpoint, Sent::Nothing)) };
        let access = Access::bearer(endpoint.as_str(), token.expose()).ok_or(ModelError::Token)?;
        Ok(Self { client: client.with_access(access), endpoint, sent: Sent::Token })
    }

    /// The hub that recipe and environment name, with the user's token if it is one that the user trusts with it: a recipe
    /// may come from anybody.
    ///
    /// # Errors
    /// [`ModelError::Endpoint`] or [`ModelError::Token`].
    pub fn find(client: &Client, recipe: Option<&str>) -> Result<Self, ModelError> {
        let (endpoint, token) = (Endpoint::find(recipe)?, Token::find());
        match endpoint.withholds() {
            Some(why) if token.is_some() => Ok(Self::without(client, endpoint, Sent::Withheld(why))),
            _ => Self::new(client, endpoint, token.as_ref()),
        }
    }

    fn without(client: &Client, endpoint: Endpoint, sent: Sent) -> Self {
        Self { client: client.clone(), endpoint, sent }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Its base address.
    pub(super) fn address(&self) -> &str {
        self.endpoint.as_str()
    }

    /// Asks what a revision is.
    pub(super) fn revision(&self, repository: Repository<'_>, revision: &str) -> Result<Revision, ModelError> {
        let (base, api) = (self.address(), repository.api());
        let url = format!("{base}/{api}/revision/{}?blobs=true", escaped(revision, ""));
        let answer =
            self.client.get(&url, ANSWER_MAX).map_err(|error| self.explain(repository.name, revision, error))?;
        Revision::decode(repository.name, &answer)
    }

    /// Reads a whole file of at most `max` bytes.
    pub(super) fn read(
        &self,
        repository: Repository<'_>,
        commit: &GitId,
        path: &str,
        max: u64,
    ) -> Result<Vec<u8>, ModelError> {
        let url = format!("{}/{}", self.address(), repository.file(commit, path));
        self.client.get(&url, max).map_err(|error| self.explain_file(repository.name, commit, path, error))
    }

    /// What an error about a file of a commit means.
    pub(super) fn explain_file(&self, repo: &RepoName, commit: &GitId, path: &str, error: HttpError) -> ModelError {
        match &error {
            HttpError::Status { status: 404 | 410, .. } => {
                ModelError::Gone { repo: repo.clone(), commit: *commit, path: path.to_owned() }
            }
            _ => self.explain(repo, &commit.to_string(), error),
        }
    }

    fn explain(&self, repo: &RepoName, revision: &str, error: HttpError) -> ModelError {
        let HttpError::Status { status, code, message, .. } = &error else { return error.into() };
        let said = match message.is_empty() {
            true => format!("status {status}"),
            false => message.clone(),
        };
        let repo = repo.clone();
        if let (Sent::Withheld(why), 401 | 403) = (self.sent, status) {
            return ModelError::Withheld { repo, said, remedy: why.remedy(self.address()) };
        }
        match (code.as_str(), status) {
            ("GatedRepo", _) | ("", 403) => ModelError::Gated { repo, said },
            ("RevisionNotFound", _) => ModelError::NoRevision { repo, revision: revision.to_owned() },
            ("RepoNotFound", _) | (_, 401 | 403 | 404) => {
                let token = match self.sent {
                    Sent::Token => "the token's account may not see it",
                    Sent::Nothing => "no token was sent",
                    Sent::Withheld(_) => "the token was not sent to this hub",
                };
                ModelError::NotShown { repo, said, token }
            }
            _ => error.into(),
        }
    }
}

/// Percent-encoded (RFC 3986, section 2.1) but for unreserved characters and `kept`.
fn escaped(text: &str, kept: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            escaped.push(c);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_revisions_cannot_change_the_address() {
        assert_eq!(escaped("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(escaped("a dir/ü?#%.json", "/"), "a%20dir/%C3%BC%3F%23%25.json");
    }

    #[test]
    fn data_sets_have_addresses_of_their_own() {
        let name = RepoName::new("org/name").unwrap();
        let of = |kind| Repository { kind, name: &name };
        let commit: GitId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        assert_eq!(of(RepoKind::Model).file(&commit, "a.json"), format!("org/name/resolve/{commit}/a.json"));
        assert_eq!(of(RepoKind::Dataset).file(&commit, "a.json"), format!("datasets/org/name/resolve/{commit}/a.json"));
        assert_eq!(
            (of(RepoKind::Model).api(), of(RepoKind::Dataset).api()),
            ("api/models/org/name".into(), "api/datasets/org/name".into())
        );
    }
}
