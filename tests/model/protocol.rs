//! Resolving and fetching, from hubs that behave and from ones that do not.

use crate::{
    hub::{Behaviour, Hub as Server},
    sample,
};
use gapimage::{
    recipe::RepoName,
    source::{
        http::{Client, HttpError, Settings},
        model::{
            Endpoint, Hub, LockedHubModel, ModelError, Pinned, RepoKind, Repository, Selection, Token, fetch, resolve,
        },
    },
    store::Store,
};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tempfile::TempDir;

const REPO: &str = "org/tiny";
const SECRET: &str = "hf_averysecrettoken";

struct Place {
    _dir: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self { _dir: dir, store }
    }

    fn resolve(&self, server: &Server, revision: &str, token: Option<&str>) -> Result<LockedHubModel, ModelError> {
        let repo = RepoName::new(REPO).unwrap();
        let repository = Repository { kind: RepoKind::Model, name: &repo };
        resolve(&hub(server, token), repository, revision, &selection(), &self.store, &|_| {})
    }

    fn fetch(&self, server: &Server, model: &LockedHubModel, token: Option<&str>) -> Result<u64, ModelError> {
        let seen = AtomicU64::new(0);
        let progress = |count| {
            seen.fetch_add(count, Ordering::Relaxed);
        };
        let repository = Repository { kind: RepoKind::Model, name: &model.repo };
        let files = model.files.iter().map(Pinned::from);
        fetch(&hub(server, token), repository, &model.commit, files, &self.store, &progress)?;
        Ok(seen.into_inner())
    }

    fn read(&self, model: &LockedHubModel, path: &str) -> Vec<u8> {
        fs::read(self.store.source_path(&model.file(path).unwrap().sha256)).unwrap()
    }
}

fn client() -> Client {
    let (attempts, pause) = (2, Duration::from_millis(1));
    Client::new(Settings { attempts, pause, stall: Duration::from_secs(5), ..Settings::default() })
}

fn hub(server: &Server, token: Option<&str>) -> Hub {
    let token = token.and_then(Token::new);
    Hub::new(&client(), Endpoint::new(&server.url).unwrap(), token.as_ref()).unwrap()
}

fn selection() -> Selection {
    Selection::of_model(&[], &[]).unwrap()
}

fn serving() -> Server {
    let server = Server::start();
    sample::put(&server, REPO, &sample::files());
    server
}

#[test]
fn a_revision_becomes_a_commit_and_digests_and_large_files_are_not_fetched_for_it() {
    let (server, place) = (serving(), Place::new());
    let model = place.resolve(&server, "main", None).unwrap();
    let paths: Vec<&str> = model.files.iter().map(|file| file.path.as_str()).collect();
    assert!(!paths.contains(&".gitattributes") && paths.contains(&"config.json") && paths.len() == 8, "{paths:?}");
    assert_eq!((model.licenses.as_slice(), model.gated), (&["mit".to_owned()][..], false));
    assert_eq!(server.downloads(), [""; 0]);
    assert_eq!(model.contradiction(), None);
    let bytes = place.fetch(&server, &model, None).unwrap();
    assert!(bytes > 0);
    for (path, data) in sample::files().into_iter().filter(|(path, _)| *path != ".gitattributes") {
        assert_eq!(place.read(&model, path), data, "{path}");
    }
    let before = (server.requests().len(), server.downloads().len());
    assert_eq!(place.fetch(&server, &model, None).unwrap(), 0);
    assert_eq!((server.requests().len(), server.downloads().len()), before);
    // Small files are known by now, so locking again asks for the list alone.
    place.resolve(&server, "main", None).unwrap();
    assert_eq!(server.requests().len(), before.0 + 1);
}

#[test]
fn a_licence_that_only_the_card_names_is_found_there() {
    let (server, place) = (serving(), Place::new());
    server.card(REPO, serde_json::Value::Null);
    assert_eq!(place.resolve(&server, "main", None).unwrap().licenses, ["apache-2.0"]);
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (server, place) = (serving(), Place::new());
    server.gate(REPO, SECRET);
    let model = place.resolve(&server, "main", Some(SECRET)).unwrap();
    assert!(model.gated);
    place.fetch(&server, &model, Some(SECRET)).unwrap();
    assert_eq!(server.downloads().len(), 2);
    // Relative redirects stay with the hub and keep the token; the store of large files never sees it.
    assert!(server.requests().iter().any(|asked| asked.contains("/api/resolve-cache/")));
    assert!(server.tokens().iter().all(|token| token.as_deref() == Some("Bearer hf_averysecrettoken")));
    assert_eq!(server.leaked_tokens(), [""; 0]);
    assert!(!format!("{model:?}").contains("averysecret"));
}

#[test]
fn a_gate_and_a_missing_repository_are_explained() {
    let (server, place) = (serving(), Place::new());
    server.gate(REPO, SECRET);
    for token in [None, Some("hf_wrong")] {
        let error = place.resolve(&server, "main", token).unwrap_err();
        assert!(matches!(error, ModelError::Gated { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("accepted its terms") && said.contains("HF_TOKEN") && !said.contains("wrong"), "{said}");
    }
    let none = Server::start();
    let error = place.resolve(&none, "main", None).unwrap_err();
    assert!(matches!(error, ModelError::NotShown { .. }) && error.to_string().contains("no token was sent"), "{error}");
    let error = place.resolve(&serving(), "nothing", None).unwrap_err();
    assert!(matches!(error, ModelError::NoRevision { .. }), "{error}");
}

#[test]
fn a_branch_that_moves_on_changes_nothing_that_is_locked() {
    let (server, place) = (serving(), Place::new());
    let model = place.resolve(&server, "main", None).unwrap();
    let shard = "model-00001-of-00002.safetensors";
    let moved = sample::put(&server, REPO, &sample::files_with(&[], &[(shard, vec![9; 5000])]));
    assert_ne!(moved, model.commit);
    place.fetch(&server, &model, None).unwrap();
    assert_ne!(place.read(&model, shard), vec![9; 5000]);
    assert_eq!(place.resolve(&server, "main", None).unwrap().commit, moved);
    assert_eq!(place.resolve(&server, &model.commit.to_string(), None).unwrap().files, model.files);
}

#[test]
fn a_commit_that_is_gone_is_told_apart_from_a_hub_that_is_down() {
    let (server, place) = (serving(), Place::new());
    let model = place.resolve(&server, "main", None).unwrap();
    server.behave(Some(Behaviour::Gone));
    let error = place.fetch(&server, &model, None).unwrap_err();
    assert!(matches!(error, ModelError::Gone { .. }) && error.to_string().contains("lock --update"), "{error}");
    server.behave(Some(Behaviour::Fail(503)));
    let error = place.fetch(&server, &model, None).unwrap_err();
    assert!(matches!(error, ModelError::Http(HttpError::Status { status: 503, .. })), "{error}");
    let mut down = server;
    down.url = "http://127.0.0.1:1".to_owned();
    let error = place.resolve(&down, "main", None).unwrap_err();
    assert!(matches!(error, ModelError::Http(HttpError::Unreachable { .. })), "{error}");
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_stopped() {
    let (server, place) = (Server::start(), Place::new());
    let big: Vec<u8> = (0..400_000_u32).map(|number| (number % 251) as u8).collect();
    sample::put(&server, REPO, &sample::files_with(&[], &[("big.bin.safetensors", big.clone())]));
    let model = place.resolve(&server, "main", None).unwrap();
    server.behave(Some(Behaviour::Cut(1000)));
    let error = place.fetch(&server, &model, None).unwrap_err();
    assert!(matches!(error, ModelError::Http(HttpError::Truncated { .. })), "{error}");
    server.behave(None);
    place.fetch(&server, &model, None).unwrap();
    assert_eq!(place.read(&model, "big.bin.safetensors"), big);
    assert!(server.downloads().iter().any(|asked| asked.contains('@')), "{:?}", server.downloads());
}

#[test]
fn other_bytes_than_promised_are_refused_and_leave_nothing() {
    let (server, place) = (serving(), Place::new());
    server.behave(Some(Behaviour::LieSmall));
    let error = place.resolve(&server, "main", None).unwrap_err();
    assert!(matches!(error, ModelError::WrongFile { .. }), "{error}");
    server.behave(None);
    let model = place.resolve(&server, "main", None).unwrap();
    server.behave(Some(Behaviour::Lie));
    let error = place.fetch(&server, &model, None).unwrap_err();
    assert!(matches!(error, ModelError::WrongDigest { .. }), "{error}");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert!(!place.store.has_source(&model.file(shard).unwrap().sha256, None));
    }
    server.behave(None);
    place.fetch(&server, &model, None).unwrap();
}

#[test]
fn web_pages_and_circles_are_named() {
    let (server, place) = (serving(), Place::new());
    let model = place.resolve(&server, "main", None).unwrap();
    server.behave(Some(Behaviour::Page));
    for error in [place.resolve(&server, "main", None).unwrap_err(), place.fetch(&server, &model, None).unwrap_err()] {
        assert!(matches!(error, ModelError::Http(HttpError::WebPage { .. })), "{error}");
    }
    server.behave(Some(Behaviour::Circle));
    let error = place.fetch(&server, &model, None).unwrap_err();
    assert!(matches!(error, ModelError::Http(HttpError::Redirection { .. })), "{error}");
}

#[test]
fn paths_that_climb_are_refused_before_anything_is_written() {
    let (server, place) = (Server::start(), Place::new());
    server.put(REPO, &[("config.json", b"{}"), ("../../../tmp/evil", b"x")]);
    let error = place.resolve(&server, "main", None).unwrap_err();
    assert!(matches!(error, ModelError::Answer { .. }) && error.to_string().contains("not allowed"), "{error}");
}
