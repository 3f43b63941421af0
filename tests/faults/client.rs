//! The appliance as these tests ask it: `gapctl`'s own connection, with JSON in and out.

use gapctl::{
    client::{Body, Client, ClientError, Fingerprint, Method, Request, Trust},
    upload::{self, UploadError, Uploaded},
};
use indicatif::ProgressBar;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest silence; a full disk and busy processors are slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest that one look at an appliance that may not be up takes: its network may swallow what is sent too early.
const LOOK: Duration = Duration::from_secs(3);
/// Longest that an appliance may be unreachable while something on it is waited for.
const UNREACHABLE: Duration = Duration::from_secs(300);

/// One appliance, spoken to with one token.
#[derive(Clone)]
pub struct Api {
    client: Arc<Client>,
    /// Where it is remembered how far uploads got.
    memory: PathBuf,
}

impl Api {
    /// The appliance at this address of this machine, recognised by its certificate.
    pub fn new(server: &str, certificate: Fingerprint, token: &str, memory: PathBuf) -> Self {
        let client = Client::new(server, &Trust::Pinned(certificate), None, Some(token.to_owned().into())).unwrap();
        Self { client: Arc::new(client), memory }
    }

    /// Looks at a path, with a query or without.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::Get, path, Body::Nothing, PATIENCE)
    }

    /// The bytes at a path, such as those of a file.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        Ok(self.client.ask(Request::new(Method::Get, path.to_owned(), Body::Nothing))?.bytes().to_vec())
    }

    /// Sends JSON to a path.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask(Method::Post, path, Body::Json(serde_json::to_vec(body).unwrap()), PATIENCE)
    }

    /// Deletes what is at a path.
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::Delete, path, Body::Nothing, PATIENCE)
    }

    fn ask(&self, method: Method, path: &str, body: Body, patience: Duration) -> Result<Value, ClientError> {
        self.client.ask(Request::new(method, path.to_owned(), body).patience(patience))?.read()
    }

    /// Brings a file, or goes on with bringing it.
    pub fn bring(&self, path: &Path, purpose: &str) -> Result<Uploaded, UploadError> {
        self.bring_shown(path, purpose, &ProgressBar::hidden())
    }

    /// The same, with a bar that shows how much of it is there.
    pub fn bring_shown(&self, path: &Path, purpose: &str, bar: &ProgressBar) -> Result<Uploaded, UploadError> {
        upload::send(&self.client, path, purpose, Some(&self.memory), bar)
    }

    /// The appliance has a file that was brought, as it was sent.
    #[track_caller]
    pub fn has(&self, file: &Uploaded) {
        let found = self.wait_for(&format!("/v1/files/{}", file.id), PATIENCE, |file| Some(file.clone())).unwrap();
        assert!(file.sha256.is_some() && found["sha256"].as_str() == file.sha256.as_deref(), "{found}");
        assert_eq!(found["bytes"].as_u64(), Some(file.bytes), "{found}");
    }

    /// Waits until the appliance answers and its data volume is open, or cannot be.
    pub fn wait_until_ready(&self, limit: Duration) -> Result<Value, String> {
        let until = Instant::now() + limit;
        loop {
            let health = self.ask(Method::Get, "/healthz", Body::Nothing, LOOK);
            match &health {
                Ok(health) if health["jobs"] != "starting" => return Ok(health.clone()),
                Err(error) if !error.is_passing() => return Err(error.to_string()),
                _ if Instant::now() >= until => return Err(format!("the appliance did not become ready: {health:?}")),
                _ => thread::sleep(PAUSE),
            }
        }
    }

    /// Looks at a path until `wanted` gives something, over an appliance that starts again meanwhile.
    pub fn wait_for<T>(
        &self,
        path: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, String> {
        let (begun, mut answered) = (Instant::now(), Instant::now());
        loop {
            let answer = self.get(path);
            match &answer {
                Ok(value) => {
                    answered = Instant::now();
                    if let Some(found) = wanted(value) {
                        return Ok(found);
                    }
                }
                Err(error) if error.is_passing() && answered.elapsed() < UNREACHABLE => {}
                Err(error) => return Err(error.to_string()),
            }
            if begun.elapsed() >= limit {
                return Err(format!("what was waited for at {path} did not happen: {answer:?}"));
            }
            thread::sleep(PAUSE);
        }
    }
}
