//! Git's object ids.

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use std::{fmt, str::FromStr};

/// Id of a git object: a SHA-1, written as 40 lower-case hexadecimal digits. It names a commit or file for people and
/// servers; what is trusted is the SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitId([u8; 20]);

/// What a git id looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a git id is 40 lower-case hexadecimal digits")]
pub struct GitIdRule;

impl GitId {
    /// The id of a blob with this content (git-hash-object(1)).
    pub fn of_blob(content: &[u8]) -> Self {
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {}\0", content.len()));
        hasher.update(content);
        Self(hasher.finalize().into())
    }

    /// An id made of the first 20 bytes of a digest, for what has none in git.
    pub(crate) fn from_digest(digest: &gap_format::Digest) -> Self {
        let mut id = [0; 20];
        id.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        Self(id)
    }
}

impl FromStr for GitId {
    type Err = GitIdRule;

    fn from_str(text: &str) -> Result<Self, GitIdRule> {
        let mut id = [0; 20];
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(GitIdRule);
        }
        hex::decode_to_slice(text, &mut id).map_err(|_| GitIdRule)?;
        Ok(Self(id))
    }
}

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for GitId {
    type Error = GitIdRule;

    fn try_from(text: String) -> Result<Self, GitIdRule> {
        text.parse()
    }
}

impl From<GitId> for String {
    fn from(id: GitId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_has_the_id_that_git_gives_it() {
        assert_eq!(GitId::of_blob(b"").to_string(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(GitId::of_blob(b"hello\n").to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn only_whole_lower_case_ids_are_read() {
        let id = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(id.parse::<GitId>().unwrap().to_string(), id);
        for bad in ["", "main", &id[1..], &format!("{id}0"), &id.to_uppercase()] {
            assert!(bad.parse::<GitId>().is_err(), "{bad}");
        }
    }
}
