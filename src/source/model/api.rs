//! The hub's answer about a revision (`GET /api/models/REPO/revision/REVISION?blobs=true`).

use super::{FILES_MAX, GitId, ModelError, path_contradiction};
use crate::recipe::RepoName;
use gap_format::Digest;
use serde::Deserialize;
use serde_json::Value;

/// What a revision of a repository is.
#[derive(Debug)]
pub(super) struct Revision {
    pub commit: GitId,
    pub gated: bool,
    /// Licences of the card, as far as the hub's listing has them.
    pub licenses: Vec<String>,
    pub files: Vec<ListedFile>,
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedFile {
    pub path: String,
    pub size: u64,
    pub git: GitId,
    /// Digest of a large file (Git LFS).
    pub sha256: Option<Digest>,
}

/// The fields of the answer that are used; there are many more.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    gated: Value,
    #[serde(default, rename = "cardData")]
    card: Value,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Revision {
    /// Decodes the answer about `repo`.
    pub fn decode(repo: &RepoName, json: &[u8]) -> Result<Self, ModelError> {
        let odd = |what: String| ModelError::Answer { repo: repo.clone(), what };
        let answer: Answer = serde_json::from_slice(json).map_err(|error| odd(error.to_string()))?;
        let commit = answer.sha.parse().map_err(|_| odd("the commit is no git id".to_owned()))?;
        if answer.siblings.len() > FILES_MAX {
            return Err(odd(format!("it lists more than {FILES_MAX} files")));
        }
        let mut files = answer.siblings.into_iter().map(listed).collect::<Result<Vec<_>, _>>().map_err(odd)?;
        if let Some(what) = path_contradiction(files.iter().map(|file| file.path.as_str())) {
            return Err(odd(what));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        // The field is `false`, or the way in which terms are accepted.
        let gated = !matches!(answer.gated, Value::Null | Value::Bool(false));
        Ok(Self { commit, gated, licenses: licenses(&answer.card), files })
    }
}

fn listed(file: Sibling) -> Result<ListedFile, String> {
    let shown = file.rfilename.escape_debug().to_string();
    let git = file.blob_id.and_then(|id| id.parse().ok()).ok_or(format!("`{shown}` has no git id"))?;
    let (size, sha256) = match &file.lfs {
        Some(lfs) => {
            let digest = Digest::from_hex(&lfs.sha256).map_err(|_| format!("`{shown}` has no SHA-256"))?;
            if file.size.is_some_and(|size| size != lfs.size) {
                return Err(format!("`{shown}` has two sizes"));
            }
            (lfs.size, Some(digest))
        }
        None => (file.size.ok_or(format!("`{shown}` has no size"))?, None),
    };
    Ok(ListedFile { path: file.rfilename, size, git, sha256 })
}

fn licenses(card: &Value) -> Vec<String> {
    let text = |key: &str| card.get(key).and_then(Value::as_str);
    let named = match card.get("license") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    super::card::settle(named, text("license_name"), text("license_link"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn decode(json: &Value) -> Result<Revision, ModelError> {
        Revision::decode(&RepoName::new("org/name").unwrap(), json.to_string().as_bytes())
    }

    fn answer(siblings: Value) -> Value {
        serde_json::json!({ "id": "org/name", "sha": COMMIT, "gated": false, "siblings": siblings, "downloads": 7 })
    }

    #[test]
    fn small_and_large_files_are_told_apart() {
        let digest = Digest::of(b"weights").to_hex();
        let revision = decode(&answer(serde_json::json!([
            { "rfilename": "model.safetensors", "size": 7, "blobId": COMMIT,
              "lfs": { "sha256": digest, "size": 7, "pointerSize": 134 } },
            { "rfilename": "config.json", "size": 2, "blobId": COMMIT },
        ])))
        .unwrap();
        let found: Vec<_> = revision.files.iter().map(|file| (file.path.as_str(), file.sha256.is_some())).collect();
        assert_eq!(found, [("config.json", false), ("model.safetensors", true)]);
        assert!(!revision.gated && revision.licenses.is_empty());
    }

    #[test]
    fn gates_and_licences_are_read() {
        let mut json = answer(serde_json::json!([]));
        json["gated"] = "manual".into();
        json["cardData"] =
            serde_json::json!({ "license": "other", "license_name": "llama3.1", "license_link": "LICENSE" });
        let revision = decode(&json).unwrap();
        assert!(revision.gated);
        assert_eq!(revision.licenses, ["llama3.1 (LICENSE)"]);
        json["cardData"] = serde_json::json!({ "license": ["mit", "apache-2.0"] });
        assert_eq!(decode(&json).unwrap().licenses, ["apache-2.0", "mit"]);
    }

    #[test]
    fn answers_that_lie_are_refused() {
        let file = |path: &str| serde_json::json!([{ "rfilename": path, "size": 2, "blobId": COMMIT }]);
        for (json, says) in [
            (answer(file("../../etc/passwd")), "not allowed"),
            (answer(serde_json::json!([{ "rfilename": "a", "size": 2 }])), "no git id"),
            (answer(serde_json::json!([{ "rfilename": "a", "blobId": COMMIT }])), "no size"),
            (
                answer(serde_json::json!([{ "rfilename": "a", "size": 3, "blobId": COMMIT,
                    "lfs": { "sha256": "x", "size": 3 } }])),
                "no SHA-256",
            ),
            (serde_json::json!({ "sha": "main" }), "no git id"),
            (serde_json::json!(["<!doctype html>"]), "not understood"),
        ] {
            let error = decode(&json).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Revision::decode(&RepoName::new("a/b").unwrap(), b"<html>").is_err());
    }
}
