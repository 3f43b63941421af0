//! Sends a file in parts, so that one that breaks off goes on where it was.

use crate::client::{Body, Client, ClientError, Request, patiently};
use gap_format::Digest;
use indicatif::ProgressBar;
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes of a part. OpenAI's longest is 64 MiB.
const PART: u64 = 16 << 20;
/// How often a part is sent before it is given up.
const TRIES: u32 = 5;
/// Longest that the appliance may take to make one file of all parts.
const PUTTING_TOGETHER: Duration = Duration::from_secs(600);

/// Why a file is not there.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum UploadError {
    /// The file.
    #[error("reading {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It became another while it was sent.
    #[error("{} was changed while it was sent", .0.display())]
    #[diagnostic(help("send it again when it rests"))]
    Changed(PathBuf),
    /// The appliance did not take it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Client(#[from] ClientError),
}

/// A file on the appliance, as far as is needed here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Uploaded {
    /// Its name for requests.
    pub id: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of what came, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct Begun {
    id: String,
    status: String,
    file: Option<Uploaded>,
}

#[derive(Deserialize)]
struct Part {
    id: String,
}

/// How far an upload got, as it is remembered until it is done.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    upload: String,
    parts: Vec<String>,
}

/// Sends `path` and says what became of it. How far it got is remembered in the directory `memory`, where there is one, so
/// that the same call goes on where this one broke off.
///
/// # Errors
/// [`UploadError`]; what was sent stays for the next try.
pub fn send(
    client: &Client,
    path: &Path,
    purpose: &str,
    memory: Option<&Path>,
    bar: &ProgressBar,
) -> Result<Uploaded, UploadError> {
    let failed = |source| UploadError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    let len = metadata.len();
    bar.set_length(len);
    let memory = Memory::of(memory, client, path, &metadata, purpose);
    let mut sum = Sha256::new();
    let (mut progress, done) = match earlier(client, &memory)? {
        Some(earlier) => earlier,
        None => (Progress { upload: begin(client, path, purpose, len)?, parts: Vec::new() }, None),
    };
    memory.store(&progress);
    for number in 0..len.div_ceil(PART) {
        let from = number * PART;
        bar.set_position(from);
        let mut bytes = Vec::new();
        (&mut file).take(PART).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 != PART.min(len - from) {
            return Err(UploadError::Changed(path.to_owned()));
        }
        sum.update(&bytes);
        if done.is_some() || usize::try_from(number).is_ok_and(|number| number < progress.parts.len()) {
            continue;
        }
        let part: Part = patiently(TRIES, || {
            let to = Request::post(&["v1", "uploads", &progress.upload, "parts"]);
            client.ask(to.with(Body::form("data", &bytes)))?.read()
        })?;
        progress.parts.push(part.id);
        memory.store(&progress);
    }
    bar.set_position(len);
    let there = match done {
        Some(there) => there,
        None => complete(client, &progress)?,
    };
    memory.forget();
    let sent = hex::encode(sum.finalize());
    if there.sha256.as_ref().is_some_and(|sum| *sum != sent) {
        return Err(UploadError::Changed(path.to_owned()));
    }
    Ok(there)
}

fn begin(client: &Client, path: &Path, purpose: &str, len: u64) -> Result<String, ClientError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wanted = json!({"filename": name, "purpose": purpose, "bytes": len, "mime_type": "application/octet-stream"});
    let request = Request::post_json(&["v1", "uploads"], &wanted)?;
    let begun: Begun = patiently(TRIES, || client.ask(request.clone())?.read())?;
    Ok(begun.id)
}

/// What an earlier try left to go on with: an upload that waits for more, or the file that it became although the answer
/// that said so was lost.
fn earlier(client: &Client, memory: &Memory) -> Result<Option<(Progress, Option<Uploaded>)>, ClientError> {
    let Some(progress) = memory.load() else { return Ok(None) };
    let request = Request::get(&["v1", "appliance", "uploads", &progress.upload]);
    match patiently(TRIES, || client.ask(request.clone())?.read::<Begun>()) {
        Ok(Begun { status, .. }) if status == "pending" => Ok(Some((progress, None))),
        Ok(Begun { file: Some(file), .. }) => Ok(Some((progress, Some(file)))),
        Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn complete(client: &Client, progress: &Progress) -> Result<Uploaded, ClientError> {
    let to = ["v1", "uploads", &progress.upload, "complete"];
    let request = Request::post_json(&to, &json!({"part_ids": progress.parts}))?.patience(PUTTING_TOGETHER);
    let done: Begun = client.ask(request)?.read()?;
    done.file.ok_or_else(|| ClientError::Request("the upload ended without a file".to_owned()))
}

/// Where it is remembered how far an upload got. Losing it costs nothing but sending parts again.
struct Memory(Option<PathBuf>);

impl Memory {
    /// For this file as it is now: another length or time of change is another upload.
    fn of(memory: Option<&Path>, client: &Client, path: &Path, metadata: &fs::Metadata, purpose: &str) -> Self {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let key = format!(
            "{}\n{}\n{}\n{}.{}\n{purpose}",
            client.server(),
            whole.display(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        Self(memory.map(|directory| directory.join(Digest::of(key.as_bytes()).to_hex())))
    }

    fn load(&self) -> Option<Progress> {
        serde_json::from_slice(&fs::read(self.0.as_ref()?).ok()?).ok()
    }

    fn store(&self, progress: &Progress) {
        let written = || -> Option<()> {
            let path = self.0.as_ref()?;
            let directory = path.parent()?;
            fs::create_dir_all(directory).ok()?;
            let mut file = tempfile::NamedTempFile::new_in(directory).ok()?;
            file.write_all(&serde_json::to_vec(progress).ok()?).ok()?;
            file.persist(path).ok()?;
            Some(())
        };
        // Where it cannot be kept, the next try begins anew.
        let _ = written();
    }

    fn forget(&self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
