//! Bringing a file: whole when it is small, else in parts, of which only those that are missing are sent when it is begun
//! again.

use super::{Client, ClientError, form::Form};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::Path,
};

/// Bytes of a part. A file that is no longer is sent whole.
const PART: u64 = 16 << 20;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file cannot be read.
    #[error("reading the file: {0}")]
    Read(#[from] io::Error),
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer lacks something.
    #[error("the appliance did not say the {0} of what was sent")]
    Answer(&'static str),
    /// The upload to go on with is another file's.
    #[error("the upload is of a file with {announced} bytes, and this one has {found}")]
    Other {
        /// Bytes as they were announced.
        announced: u64,
        /// Bytes of the file here.
        found: u64,
    },
}

impl Client {
    /// Brings a file for this purpose (`fine-tune`, `evals`, `user_data`), and returns its description. `upload` names an
    /// upload of the same file to go on with.
    ///
    /// # Errors
    /// [`UploadError`]; what has arrived stays, and the upload can be gone on with.
    pub fn bring(&self, path: &Path, purpose: &str, upload: Option<&str>) -> Result<Value, UploadError> {
        let length = path.metadata()?.len();
        let filename = path.file_name().and_then(|name| name.to_str()).unwrap_or("upload");
        if length <= PART && upload.is_none() {
            let form = Form::new(&[("purpose", purpose)], "file", filename, File::open(path)?, length);
            return Ok(self.post_form("/v1/files", form)?);
        }
        let upload = match upload {
            Some(id) => self.get(&format!("/v1/appliance/uploads/{id}"))?,
            None => self.begin(path, purpose)?,
        };
        let announced = upload.get("bytes").and_then(Value::as_u64).ok_or(UploadError::Answer("length"))?;
        if announced != length {
            return Err(UploadError::Other { announced, found: length });
        }
        let id = id_of(&upload)?;
        let parts = self.bring_parts(path, length, id, kept(&upload))?;
        let done = self.post(&format!("/v1/uploads/{id}/complete"), &json!({"part_ids": parts}))?;
        done.get("file").filter(|file| !file.is_null()).cloned().ok_or(UploadError::Answer("file"))
    }

    /// Begins an upload of a file.
    pub fn begin(&self, path: &Path, purpose: &str) -> Result<Value, UploadError> {
        let bytes = path.metadata()?.len();
        let mime = "application/octet-stream";
        let body = json!({"filename": "upload", "purpose": purpose, "bytes": bytes, "mime_type": mime});
        Ok(self.post("/v1/uploads", &body)?)
    }

    /// Sends the parts that are not there, and returns the names of all.
    fn bring_parts(
        &self,
        path: &Path,
        length: u64,
        upload: &str,
        kept: Vec<(String, u64)>,
    ) -> Result<Vec<String>, UploadError> {
        let mut arrived = kept.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let mut parts: Vec<String> = kept.into_iter().map(|(id, _)| id).collect();
        while arrived < length {
            let bytes = PART.min(length.saturating_sub(arrived));
            parts.push(self.bring_part(path, upload, arrived, bytes)?);
            arrived = arrived.saturating_add(bytes);
        }
        Ok(parts)
    }

    fn bring_part(&self, path: &Path, upload: &str, from: u64, bytes: u64) -> Result<String, UploadError> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let form = Form::new(&[], "data", "part", file, bytes);
        Ok(id_of(&self.post_form(&format!("/v1/uploads/{upload}/parts"), form)?)?.to_owned())
    }
}

fn id_of(value: &Value) -> Result<&str, UploadError> {
    value.get("id").and_then(Value::as_str).ok_or(UploadError::Answer("name"))
}

/// The parts that have arrived before, in the order of the file. They were sent one after the other by this program, all
/// but the last of the same length.
fn kept(upload: &Value) -> Vec<(String, u64)> {
    let part = |part: &Value| Some((part.get("id")?.as_str()?.to_owned(), part.get("bytes")?.as_u64()?));
    let parts = upload.get("parts").and_then(Value::as_array);
    parts.into_iter().flatten().map_while(part).take_while(|(_, bytes)| *bytes == PART).collect()
}
