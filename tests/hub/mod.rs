//! A model hub on the loopback device that speaks Hugging Face's protocol, and can misbehave.
//!
//! Two servers: the hub itself, and the store of large files that it redirects to, which is another origin. Both keep a
//! log of what was asked, with the token that came along.

#![allow(dead_code, reason = "each test program uses its own part of the hub")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a fixture that fails is a failed test")]

mod http;

use gap_format::Digest;
use gapimage::source::model::GitId;
use http::{Answer, Asked};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// How the hub misbehaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Each answer that carries a large file ends after so many bytes.
    Cut(usize),
    /// Large files have other bytes, of the same length.
    Lie,
    /// Small files have other bytes, of the same length.
    LieSmall,
    /// Every answer is a web page, with status 200.
    Page,
    /// Every answer is an error.
    Fail(u16),
    /// Large files are redirected in a circle.
    Circle,
    /// The commit is no longer there, only the list of it.
    Gone,
}

/// A repository.
#[derive(Debug, Clone)]
struct Repository {
    commit: GitId,
    files: BTreeMap<String, Arc<[u8]>>,
    /// Those of them that are in Git LFS.
    large: Vec<String>,
    gated: bool,
    /// The token without which nothing is given.
    token: Option<String>,
    card: serde_json::Value,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    behaviour: Option<Behaviour>,
    /// Commits that were replaced, by repository: still served, as a hub does.
    old: Vec<(String, Repository)>,
    asked: Vec<Asked>,
    stored: Vec<Asked>,
}

/// A running hub.
#[derive(Debug, Clone)]
pub struct Hub {
    state: Arc<Mutex<State>>,
    /// Its address, for `HF_ENDPOINT`.
    pub url: String,
    store_url: String,
}

impl Hub {
    /// Starts one without repositories.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let storing = Arc::clone(&state);
        let store_url = http::serve(move |asked| storing.lock().unwrap().stored(asked));
        let (serving, store) = (Arc::clone(&state), store_url.clone());
        let url = http::serve(move |asked| serving.lock().unwrap().asked(asked, &store));
        Self { state, url, store_url }
    }

    /// Puts a repository there, or a new commit of it. Weights and whatever is longer than 1 KiB are in Git LFS.
    pub fn put(&self, repo: &str, files: &[(&str, &[u8])]) -> GitId {
        let files: BTreeMap<String, Arc<[u8]>> =
            files.iter().map(|(path, data)| ((*path).to_owned(), (*data).into())).collect();
        let is_large = |path: &str, data: &[u8]| {
            data.len() > 1024 || [".safetensors", ".bin", ".gguf"].iter().any(|end| path.ends_with(end))
        };
        let large = files.iter().filter(|(path, data)| is_large(path, data)).map(|(path, _)| path.clone()).collect();
        let listing: String = files.iter().map(|(path, data)| format!("{path} {}\n", Digest::of(data))).collect();
        let commit = GitId::of_blob(listing.as_bytes());
        let new = Repository {
            commit,
            files,
            large,
            gated: false,
            token: None,
            card: serde_json::json!({ "license": "mit" }),
        };
        let mut state = self.state.lock().unwrap();
        if let Some(old) = state.repositories.insert(repo.to_owned(), new) {
            state.old.push((repo.to_owned(), old));
        }
        commit
    }

    /// Lets nobody in without this token.
    pub fn gate(&self, repo: &str, token: &str) {
        let mut state = self.state.lock().unwrap();
        let repository = state.repositories.get_mut(repo).unwrap();
        (repository.gated, repository.token) = (true, Some(token.to_owned()));
    }

    /// Changes what the listing says of the card.
    pub fn card(&self, repo: &str, card: serde_json::Value) {
        self.state.lock().unwrap().repositories.get_mut(repo).unwrap().card = card;
    }

    /// Misbehaves from now on, or no longer.
    pub fn behave(&self, behaviour: Option<Behaviour>) {
        self.state.lock().unwrap().behaviour = behaviour;
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        state.asked.clear();
        state.stored.clear();
    }

    /// What the hub itself was asked, in order: `METHOD path`, with `@FIRST` where a part was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.iter().map(Asked::shown).collect()
    }

    /// What the store of large files was asked.
    pub fn downloads(&self) -> Vec<String> {
        self.state.lock().unwrap().stored.iter().map(Asked::shown).collect()
    }

    /// The values of `Authorization` that the hub itself saw.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().asked.iter().map(|asked| asked.authorization.clone()).collect()
    }

    /// The values of `Authorization` that the store of large files saw.
    pub fn leaked_tokens(&self) -> Vec<String> {
        self.state.lock().unwrap().stored.iter().filter_map(|asked| asked.authorization.clone()).collect()
    }
}

impl State {
    /// What the hub itself answers.
    fn asked(&mut self, asked: Asked, store: &str) -> Answer {
        self.asked.push(asked.clone());
        match &self.behaviour {
            Some(Behaviour::Page) => return Answer::page(),
            Some(Behaviour::Fail(status)) => return Answer::error(*status, "", ""),
            _ => {}
        }
        let path = asked.path.split('?').next().unwrap_or_default();
        // Data sets are known here by `datasets/NAME`, as in the addresses of their files.
        let about_model = path.strip_prefix("/api/models/").map(str::to_owned);
        let about = about_model.or_else(|| Some(format!("datasets/{}", path.strip_prefix("/api/datasets/")?)));
        if let Some(rest) = about {
            return match (rest.split_once("/revision/"), rest.split_once("/tree/")) {
                (Some((repo, revision)), _) => self.revision(repo, revision, &asked),
                (None, Some((repo, revision))) => self.tree(repo, revision, &asked),
                (None, None) => self.revision(&rest, "main", &asked),
            };
        }
        // Small files are answered by way of a cache of the hub itself, as the real one does.
        let cached = path.strip_prefix("/api/resolve-cache/models").or_else(|| path.strip_prefix("/api/resolve-cache"));
        let (cached, path) = cached.map_or((false, path), |path| (true, path));
        match path.trim_start_matches('/').split_once("/resolve/") {
            Some((repo, rest)) => self.file(repo, rest, &asked, store, cached),
            None => Answer::error(404, "", "Not found"),
        }
    }

    fn admitted(&self, repo: &str, revision: &str, asked: &Asked) -> Result<&Repository, Answer> {
        let missing = || Answer::error(401, "RepoNotFound", "Invalid username or password.");
        let current = self.repositories.get(repo).ok_or_else(missing)?;
        if let Some(token) = &current.token
            && asked.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            let status = if asked.authorization.is_some() { 403 } else { 401 };
            return Err(Answer::error(status, "GatedRepo", &format!("Access to model {repo} is restricted.")));
        }
        let known = |repository: &&Repository| revision == repository.commit.to_string();
        let old = self.old.iter().filter(|(name, _)| name == repo).map(|(_, old)| old);
        let wanted = if revision == "main" { Some(current) } else { old.chain([current]).find(known) };
        wanted.ok_or_else(|| Answer::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")))
    }

    fn revision(&self, repo: &str, revision: &str, asked: &Asked) -> Answer {
        let repository = match self.admitted(repo, revision, asked) {
            Ok(repository) => repository,
            Err(answer) => return answer,
        };
        let siblings = repository.files.iter().map(|(path, data)| {
            let mut sibling = serde_json::json!({ "rfilename": path });
            if asked.path.contains("blobs=") {
                sibling["size"] = data.len().into();
                sibling["blobId"] = repository.blob_id(path, data).to_string().into();
            }
            if asked.path.contains("blobs=") && repository.large.contains(path) {
                sibling["lfs"] =
                    serde_json::json!({ "sha256": Digest::of(data).to_hex(), "size": data.len(), "pointerSize": 134 });
            }
            sibling
        });
        Answer::json(&serde_json::json!({
            "_id": "621ffdc036468d709f174364",
            "id": repo,
            "modelId": repo,
            "sha": repository.commit.to_string(),
            "private": false,
            "gated": if repository.gated { serde_json::json!("auto") } else { serde_json::json!(false) },
            "disabled": false,
            "downloads": 3,
            "likes": 1,
            "tags": ["transformers"],
            "lastModified": "2025-01-01T00:00:00.000Z",
            "createdAt": "2025-01-01T00:00:00.000Z",
            "cardData": repository.card,
            "siblings": siblings.collect::<Vec<_>>(),
        }))
    }

    /// The listing that Hugging Face's own client asks for as well.
    fn tree(&self, repo: &str, revision: &str, asked: &Asked) -> Answer {
        let repository = match self.admitted(repo, revision, asked) {
            Ok(repository) => repository,
            Err(answer) => return answer,
        };
        let entries = repository.files.iter().map(|(path, data)| {
            let oid = repository.blob_id(path, data).to_string();
            let mut entry = serde_json::json!({ "type": "file", "path": path, "size": data.len(), "oid": oid });
            if repository.large.contains(path) {
                entry["lfs"] =
                    serde_json::json!({ "oid": Digest::of(data).to_hex(), "size": data.len(), "pointerSize": 134 });
            }
            entry
        });
        Answer::json(&entries.collect::<Vec<_>>().into())
    }

    fn file(&self, repo: &str, rest: &str, asked: &Asked, store: &str, cached: bool) -> Answer {
        let (revision, path) = rest.split_once('/').unwrap_or_default();
        let repository = match self.admitted(repo, revision, asked) {
            Ok(repository) => repository,
            Err(answer) => return answer,
        };
        let Some(data) = repository.files.get(path).filter(|_| self.behaviour != Some(Behaviour::Gone)) else {
            return Answer::error(404, "EntryNotFound", "Entry not found");
        };
        let (commit, large) = (repository.commit.to_string(), repository.large.iter().any(|name| name == path));
        let headers = |answer: Answer| answer.header("X-Repo-Commit", &commit);
        if large {
            let digest = Digest::of(data).to_hex();
            let at = match self.behaviour {
                Some(Behaviour::Circle) => asked.path.clone(),
                _ => format!("{store}/repos/{digest}?X-Amz-Signature=signed-{digest}"),
            };
            let answer = Answer::redirect(302, &at);
            let answer = answer.header("X-Linked-Etag", &format!("\"{digest}\""));
            return headers(answer.header("X-Linked-Size", &data.len().to_string()));
        }
        let etag = format!("\"{}\"", GitId::of_blob(data));
        if !cached {
            let kind = if repo.starts_with("datasets/") { "" } else { "models/" };
            let at = format!("/api/resolve-cache/{kind}{repo}/resolve/{revision}/{path}");
            let answer = Answer::redirect(307, &at).header("X-Linked-Etag", &etag);
            return headers(answer.header("X-Linked-Size", &data.len().to_string()));
        }
        let lie = self.behaviour == Some(Behaviour::LieSmall);
        let data = if lie { data.iter().map(|byte| byte ^ 1).collect() } else { Arc::clone(data) };
        headers(Answer::data(&data, asked.first).header("ETag", &etag))
    }

    /// What the store of large files answers.
    fn stored(&mut self, asked: Asked) -> Answer {
        self.stored.push(asked.clone());
        let (path, query) = asked.path.split_once('?').unwrap_or_default();
        let digest = path.trim_start_matches("/repos/");
        if query != format!("X-Amz-Signature=signed-{digest}") {
            return Answer::error(403, "", "");
        }
        let repositories = self.repositories.values().chain(self.old.iter().map(|(_, old)| old));
        let mut files = repositories.flat_map(|repository| repository.files.values());
        let Some(data) = files.find(|data| Digest::of(data).to_hex() == digest) else {
            return Answer::error(404, "", "");
        };
        match &self.behaviour {
            Some(Behaviour::Cut(at)) => Answer::data(data, asked.first).cut(*at),
            Some(Behaviour::Lie) => Answer::data(&data.iter().map(|byte| byte ^ 1).collect::<Vec<_>>(), asked.first),
            _ => Answer::data(data, asked.first),
        }
    }
}

impl Repository {
    /// The id in git: of the file itself, or of the pointer to it.
    fn blob_id(&self, path: &str, data: &[u8]) -> GitId {
        if !self.large.iter().any(|name| name == path) {
            return GitId::of_blob(data);
        }
        let digest = Digest::of(data).to_hex();
        let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {}\n", data.len());
        GitId::of_blob(pointer.as_bytes())
    }
}
