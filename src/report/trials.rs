//! The tests that a release passed, so that the other side can try the same in the same images.

use super::{
    contents::{Contents, ContentsError},
    documents::Document,
    origins::Origins,
};
use crate::trial::Record;
use serde::{Deserialize, Serialize};

/// Media type of the list, and type of the artifact that carries it.
pub const MEDIA_TYPE: &str = "application/vnd.gapimage.tests.v1+json";
/// The version of the format.
const VERSION: u32 = 1;

/// The tests of a release, as they are written and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    version: u32,
    name: String,
    release: String,
    /// Each of them, in the order of the recipe.
    pub tests: Vec<Record>,
}

/// The list as a document.
pub fn document(origins: &Origins<'_>) -> Vec<u8> {
    let tests = Tests {
        version: VERSION,
        name: origins.release.name.clone(),
        release: origins.release.version.clone(),
        tests: origins.tests.clone(),
    };
    // Strings, numbers and lists of them only, so nothing can fail.
    serde_json::to_vec(&tests).unwrap_or_default()
}

impl Tests {
    /// The tests of an artifact; `None` where none were tried.
    ///
    /// # Errors
    /// [`ContentsError`] if the document cannot be read.
    pub fn of(contents: &Contents) -> Result<Option<Self>, ContentsError> {
        Document::only(contents, MEDIA_TYPE)?.map(|document| document.decode(contents, VERSION)).transpose()
    }
}
