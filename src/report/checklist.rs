//! The checklist as it came out when the release was built.

use super::{
    contents::{Contents, ContentsError},
    documents::Document,
    origins::Origins,
};
use crate::check::{Line, Summary};
use serde::{Deserialize, Serialize};

/// Media type of the checklist, and type of the artifact that carries it.
pub const MEDIA_TYPE: &str = "application/vnd.gapimage.checklist.v1+json";
/// The version of the format.
const VERSION: u32 = 1;

/// A checklist as it is written.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    name: &'a str,
    release: &'a str,
    summary: Summary,
    lines: &'a [Line],
}

/// What is read back of a checklist.
#[derive(Deserialize)]
struct Read {
    summary: Summary,
}

/// The checklist as a document.
pub fn document(origins: &Origins<'_>) -> Vec<u8> {
    let written = Written {
        version: VERSION,
        name: &origins.release.name,
        release: &origins.release.version,
        summary: origins.checklist.summary,
        lines: &origins.checklist.lines,
    };
    // Strings, numbers and lists of them only, so nothing can fail.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// How many lines of an artifact's checklist came out how; `None` where it carries none.
///
/// # Errors
/// [`ContentsError`] if the document cannot be read.
pub fn summary(contents: &Contents) -> Result<Option<Summary>, ContentsError> {
    let Some(document) = Document::only(contents, MEDIA_TYPE)? else { return Ok(None) };
    let read: Read = document.decode(contents, VERSION)?;
    Ok(Some(read.summary))
}
