//! The documents that an artifact carries about itself, found and read.

use super::{
    checklist,
    contents::{Contents, ContentsError},
    licences, provenance, sbom, trials,
};
use crate::image::oci::annotation;
use gap_format::{Digest, escape::escaped};
use gap_handover::declared;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Largest document that is read, in bytes; the bill of materials of 20 000 packages is 20 MB.
const MAX_DOCUMENT: u64 = 256 << 20;

/// Short names by which a document is asked for, and their media types.
const KINDS: [(&str, &str); 6] = [
    ("sbom", sbom::MEDIA_TYPE),
    ("provenance", provenance::MEDIA_TYPE),
    ("licenses", licences::MEDIA_TYPE),
    ("jobs", declared::MEDIA_TYPE),
    ("checklist", checklist::MEDIA_TYPE),
    ("tests", trials::MEDIA_TYPE),
];

/// A document in an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Its title, a file name; its digest where the manifest gives none. Not escaped.
    pub title: String,
    /// Its type. Not escaped.
    pub media_type: String,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The manifests that it is about.
    pub about: Vec<Digest>,
}

impl Document {
    /// All documents of an artifact in the order of its index: artifacts with a title and one blob that are about something.
    /// What is needed to mount or to boot has no title.
    ///
    /// # Errors
    /// [`ContentsError`] if a manifest cannot be read.
    pub fn all(contents: &Contents) -> Result<Vec<Self>, ContentsError> {
        let mut documents: Vec<Self> = Vec::new();
        for entry in &contents.release().index().manifests {
            if !entry.annotations.contains_key(annotation::TITLE) || entry.artifact_type.is_none() {
                continue;
            }
            let manifest = contents.manifest(&entry.digest)?;
            let (Some(subject), [blob]) = (manifest.subject, manifest.layers.as_slice()) else { continue };
            match documents.iter_mut().find(|document| document.digest == blob.digest) {
                Some(document) => document.about.push(subject.digest),
                None => documents.push(Self {
                    title: blob.annotations.get(annotation::TITLE).cloned().unwrap_or_else(|| blob.digest.to_string()),
                    media_type: blob.media_type.clone(),
                    digest: blob.digest,
                    size: blob.size,
                    about: vec![subject.digest],
                }),
            }
        }
        Ok(documents)
    }

    /// The first document of this media type.
    ///
    /// # Errors
    /// As for [`Document::all`].
    pub(super) fn only(contents: &Contents, media_type: &str) -> Result<Option<Self>, ContentsError> {
        Ok(Self::all(contents)?.into_iter().find(|document| document.media_type == media_type))
    }

    /// The document of this title; or of this kind (`sbom`, `provenance`, `licenses`, `jobs`, `checklist`,
    /// `tests`), if there is one only.
    ///
    /// # Errors
    /// [`ContentsError::NoDocument`], or as for [`Document::all`].
    pub fn find(contents: &Contents, wanted: &str) -> Result<Self, ContentsError> {
        let documents = Self::all(contents)?;
        if let Some(document) = documents.iter().find(|document| document.title == wanted) {
            return Ok(document.clone());
        }
        let media_type = KINDS.iter().find(|(kind, _)| *kind == wanted).map(|(_, media_type)| *media_type);
        let of_kind: Vec<&Self> =
            documents.iter().filter(|document| Some(document.media_type.as_str()) == media_type).collect();
        let (found, offered) = match of_kind.as_slice() {
            [document] => return Ok((*document).clone()),
            [] => ("no", documents.iter().collect()),
            _ => ("more than one", of_kind),
        };
        let titles: Vec<String> = offered.iter().map(|document| format!("`{}`", escaped(&document.title))).collect();
        Err(ContentsError::NoDocument {
            path: contents.path().to_owned(),
            found,
            wanted: escaped(wanted),
            hint: if titles.is_empty() { "it holds none".to_owned() } else { format!("ask for {}", titles.join(", ")) },
        })
    }

    /// Its bytes, which have its digest.
    ///
    /// # Errors
    /// [`ContentsError::Head`] if it is not there, too long or damaged.
    pub fn read(&self, contents: &Contents) -> Result<Vec<u8>, ContentsError> {
        contents.read_blob(&self.digest, MAX_DOCUMENT)
    }

    /// What it says, where its form has this version.
    ///
    /// # Errors
    /// [`ContentsError::Document`] if it has another, or as for [`Document::read`].
    pub(super) fn decode<T: DeserializeOwned>(&self, contents: &Contents, version: u32) -> Result<T, ContentsError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let bytes = self.read(contents)?;
        let refused = |reason: String| ContentsError::Document {
            path: contents.path().to_owned(),
            title: escaped(&self.title),
            reason: escaped(&reason),
        };
        let form = |error: serde_json::Error| refused(error.to_string());
        match serde_json::from_slice(&bytes).map_err(form)? {
            Versioned { version: found } if found != version => {
                Err(refused(format!("its version is {found}, and this program knows version {version}")))
            }
            Versioned { .. } => serde_json::from_slice(&bytes).map_err(form),
        }
    }
}
