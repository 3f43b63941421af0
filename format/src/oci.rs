//! The few fields of OCI documents that an appliance needs (OCI image-spec 1.1). Unknown fields are passed over.

use crate::{Digest, escape::escaped};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Annotation that names an image in the index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Artifact type of the manifest that says how an image is mounted.
pub const MOUNT_TYPE: &str = "application/vnd.gapimage.mount.v1";

/// Media type of an image's EROFS metadata.
pub const EROFS_TYPE: &str = "application/vnd.gapimage.erofs.v1";

/// Media type of a hash tree.
pub const VERITY_TYPE: &str = "application/vnd.gapimage.verity.v1";

/// Annotation that names a blob for people (image-spec 1.1, "Pre-Defined Annotation Keys").
pub const TITLE: &str = "org.opencontainers.image.title";

/// Annotation of a hash tree: its root, as a digest.
pub const VERITY_ROOT: &str = "org.gapimage.verity.root";

/// Annotation of a hash tree: the digest of the blob that it covers.
pub const VERITY_DATA: &str = "org.gapimage.verity.data";

/// A pointer to a blob (image-spec, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// SHA-256 of the blob; other algorithms are not used.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Type of the artifact that a manifest describes.
    pub artifact_type: Option<String>,
    /// Free text by key.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The list of everything in an artifact (image-spec, "Image Index").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Manifests of images, models, data sets and attestations.
    pub manifests: Vec<Descriptor>,
    /// Free text by key.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An image or artifact (image-spec, "Image Manifest").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Type of the artifact; absent for an image.
    pub artifact_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// The image's layers, lowest first, or the artifact's blobs.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are no such document; the text is escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseOciError(String);

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`ParseOciError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseOciError> {
        let index: Self = parse(bytes)?;
        check_version(index.schema_version)?;
        Ok(index)
    }

    /// The manifest that goes by this name.
    pub fn by_name(&self, name: &str) -> Option<&Descriptor> {
        self.manifests.iter().find(|manifest| manifest.annotations.get(REF_NAME).is_some_and(|it| it == name))
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ParseOciError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseOciError> {
        let manifest: Self = parse(bytes)?;
        check_version(manifest.schema_version)?;
        Ok(manifest)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ParseOciError> {
    serde_json::from_slice(bytes).map_err(|error| ParseOciError(escaped(&error.to_string())))
}

fn check_version(version: u32) -> Result<(), ParseOciError> {
    if version == 2 { Ok(()) } else { Err(ParseOciError(format!("its schemaVersion is {version} and not 2"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_and_searched_by_name() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"x","manifests":[{{"mediaType":"m","digest":"{digest}","size":3,
            "annotations":{{"{REF_NAME}":"os"}},"platform":{{"os":"linux"}}}}]}}"#
        );
        let index = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(index.by_name("os").map(|it| it.size), Some(3));
        assert_eq!(index.by_name("other"), None);
        assert!(Index::parse(text.replace("n\":2", "n\":1").as_bytes()).is_err());
        assert!(Index::parse(text.replace("sha256", "sha512").as_bytes()).is_err());
    }
}
