//! Talking to a hub.

use super::{Endpoint, GitId, ModelError, Token, api::Revision};
use crate::{
    recipe::RepoName,
    source::http::{Access, Client, HttpError},
};

/// Longest answer about a revision that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// A hub, and who asks it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    endpoint: Endpoint,
    has_token: bool,
}

impl Hub {
    /// The hub at `endpoint`. The token goes to that server only.
    ///
    /// # Errors
    /// [`ModelError::Token`] if the token cannot be sent.
    pub fn new(client: &Client, endpoint: Endpoint, token: Option<&Token>) -> Result<Self, ModelError> {
        let Some(token) = token else {
            return Ok(Self { client: client.clone(), endpoint, has_token: false });
        };
        let access = Access::bearer(endpoint.as_str(), token.expose()).ok_or(ModelError::Token)?;
        Ok(Self { client: client.with_access(access), endpoint, has_token: true })
    }

    /// The hub that recipe and environment name, with the user's token.
    ///
    /// # Errors
    /// [`ModelError::Endpoint`] or [`ModelError::Token`].
    pub fn find(client: &Client, recipe: Option<&str>) -> Result<Self, ModelError> {
        Self::new(client, Endpoint::find(recipe)?, Token::find().as_ref())
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Its base address.
    pub(super) fn address(&self) -> &str {
        self.endpoint.as_str()
    }

    /// Asks what a revision is.
    pub(super) fn revision(&self, repo: &RepoName, revision: &str) -> Result<Revision, ModelError> {
        let url = format!("{}/api/models/{repo}/revision/{}?blobs=true", self.address(), escaped(revision, ""));
        let answer = self.client.get(&url, ANSWER_MAX).map_err(|error| self.explain(repo, revision, error))?;
        Revision::decode(repo, &answer)
    }

    /// Reads a whole file of at most `max` bytes.
    pub(super) fn read(&self, repo: &RepoName, commit: &GitId, path: &str, max: u64) -> Result<Vec<u8>, ModelError> {
        let url = format!("{}/{}", self.address(), file_path(repo, commit, path));
        self.client.get(&url, max).map_err(|error| self.explain_file(repo, commit, path, error))
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
        match (code.as_str(), status) {
            ("GatedRepo", _) | ("", 403) => ModelError::Gated { repo, said },
            ("RevisionNotFound", _) => ModelError::NoRevision { repo, revision: revision.to_owned() },
            ("RepoNotFound", _) | (_, 401 | 403 | 404) => {
                let token = match self.has_token {
                    true => "the token's account may not see it",
                    false => "no token was sent",
                };
                ModelError::NotShown { repo, said, token }
            }
            _ => error.into(),
        }
    }
}

/// Where a file of a commit lies below the hub's address.
pub(super) fn file_path(repo: &RepoName, commit: &GitId, path: &str) -> String {
    format!("{repo}/resolve/{commit}/{}", escaped(path, "/"))
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
}
