//! What can go wrong with a model, or a data set of a hub, before it is built.

use super::GitId;
use crate::{recipe::RepoName, source::http::HttpError, store::StoreError};
use gap_format::Digest;
use std::{io, path::PathBuf};

/// Why a model cannot be resolved or fetched.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// What should be the hub's address is none.
    #[error("{origin} names the hub `{url}`; an address that starts with http:// or https:// was expected")]
    Endpoint {
        /// Who named it.
        origin: &'static str,
        /// What was named, without credentials.
        url: String,
    },
    /// The token cannot be sent.
    #[error("the hub's token holds characters that cannot stand in a request; check HF_TOKEN, or log in again")]
    Token,
    /// The hub gives the model only to those who accepted its terms.
    #[error(
        "the hub gives `{repo}` only to those who accepted its terms ({said}): accept them on its page, and set \
         HF_TOKEN to a token of that account"
    )]
    Gated {
        /// The repository.
        repo: RepoName,
        /// What the hub said.
        said: String,
    },
    /// The hub wants a token, and may not have the user's.
    #[error("the hub does not give `{repo}` without a token ({said}), and yours stayed here: {remedy}")]
    Withheld {
        /// The repository.
        repo: RepoName,
        /// What the hub said.
        said: String,
        /// Why it was not sent, and what to do.
        remedy: String,
    },
    /// The token is missing, wrong, or of somebody who may not see the repository.
    #[error(
        "the hub does not show `{repo}` ({said}): it does not exist, or it is private and {token}; check the name and \
         HF_TOKEN"
    )]
    NotShown {
        /// The repository.
        repo: RepoName,
        /// What the hub said.
        said: String,
        /// Whether a token was sent.
        token: &'static str,
    },
    /// There is no such branch, tag or commit.
    #[error("`{repo}` has no revision `{revision}`; check the spelling on its page")]
    NoRevision {
        /// The repository.
        repo: RepoName,
        /// The revision.
        revision: String,
    },
    /// The commit that the lock names is gone.
    #[error(
        "the hub no longer has `{path}` of `{repo}` at {commit}: its history was rewritten, or it was withdrawn; \
         run `gapimage lock --update` to take what is there now"
    )]
    Gone {
        /// The repository.
        repo: RepoName,
        /// The commit.
        commit: GitId,
        /// The file.
        path: String,
    },
    /// The hub's answer is not understood.
    #[error("the hub's answer about `{repo}` is not understood: {what}; check the hub's address (HF_ENDPOINT)")]
    Answer {
        /// The repository.
        repo: RepoName,
        /// What is odd.
        what: String,
    },
    /// Another commit than the one that was asked for.
    #[error("the hub answers with commit {found} of `{repo}`, but {asked} was asked for")]
    OtherCommit {
        /// The repository.
        repo: RepoName,
        /// The commit in the recipe.
        asked: GitId,
        /// The commit of the answer.
        found: GitId,
    },
    /// A file is not what the hub's own listing says.
    #[error(
        "`{path}` of `{repo}` came with git id {found} and {size} bytes, but the hub's list says {expected} and {listed}; \
         nothing was taken: try again, and if it stays so, do not trust this hub"
    )]
    WrongFile {
        /// The repository.
        repo: RepoName,
        /// The file.
        path: String,
        /// Id that was promised.
        expected: GitId,
        /// Size that was promised.
        listed: u64,
        /// Id of what came.
        found: GitId,
        /// Size of what came.
        size: u64,
    },
    /// A large file is not what the lock says.
    #[error(
        "`{path}` of `{repo}` came with SHA-256 {found}, but {expected} is locked; nothing was taken: try again, and if it \
         stays so, do not trust this hub"
    )]
    WrongDigest {
        /// The repository.
        repo: RepoName,
        /// The file.
        path: String,
        /// What is locked.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A glob cannot be read.
    #[error("the pattern `{glob}` is not understood: {what}")]
    Glob {
        /// The pattern.
        glob: String,
        /// What is wrong.
        what: String,
    },
    /// The globs leave nothing.
    #[error("`include` and `exclude` leave no file; the repository or directory has {has}")]
    Nothing {
        /// Some of the files that there are.
        has: String,
    },
    /// A directory cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in a directory cannot be part of a model.
    #[error("`{}` {what}", path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// What is odd about it.
        what: String,
    },
    /// The hub cannot be reached, or fails.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
