//! The OCI documents of a release (image-spec 1.1), each in one canonical encoding: fields in fixed order, maps
//! sorted, no white space.
//!
//! The length of a document does not depend on the digests in it, because all digests are equally long. So a packer
//! first makes every document with [`PLACEHOLDER`] digests, reserves that much space, and makes it again with the
//! same sizes when the digests are known. [`ImageDocuments`] makes all of an image at once.

mod artifact;
mod documents;
mod image;
mod index;

pub use artifact::{BootPart, CoveredBlob, artifact_manifest, boot_manifest, mount_manifest};
pub use documents::{Document, ImageDocuments, MountedLayer};
pub use image::{ImageInfo, LayerBlob, RunSettings, config, image_manifest};
pub use index::{DockerImage, docker_manifest, index, layout, repo_tag};

use gap_format::Digest;
use serde::Serialize;
use std::collections::BTreeMap;

/// Media types and artifact types.
pub mod media_type {
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI manifest, of an image or an artifact.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed layer tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// The two bytes `{}`, the configuration of artifacts.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Artifact type: what is needed to mount an image in place.
    pub const MOUNT: &str = "application/vnd.gapimage.mount.v1";
    /// EROFS metadata over the layers of an image.
    pub const EROFS: &str = "application/vnd.gapimage.erofs.v1";
    /// A dm-verity hash tree.
    pub const VERITY: &str = "application/vnd.gapimage.verity.v1";
    /// Artifact type: what the firmware starts.
    pub const BOOT: &str = "application/vnd.gapimage.boot.v1";
    /// A FAT image, the EFI system partition.
    pub const ESP: &str = "application/vnd.gapimage.esp.v1";
    /// Artifact type: a model (CNCF ModelPack). It stays an image that containers run from: its configuration and layers
    /// are those of an image.
    pub const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
    /// A unified kernel image.
    pub const UKI: &str = "application/vnd.gapimage.uki.v1";
}

/// Annotation keys.
pub mod annotation {
    /// RFC 3339 date.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// Version of what is packaged.
    pub const VERSION: &str = "org.opencontainers.image.version";
    /// Revision of its source.
    pub const REVISION: &str = "org.opencontainers.image.revision";
    /// Where its source is found.
    pub const SOURCE: &str = "org.opencontainers.image.source";
    /// SPDX licence expression.
    pub const LICENSES: &str = "org.opencontainers.image.licenses";
    /// A name for people.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// The name by which an index entry is asked for.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// Path in the model of what a layer holds (CNCF ModelPack).
    pub const MODEL_PATH: &str = "org.cncf.model.filepath";
    /// Root digest of the verity tree that the descriptor describes.
    pub const VERITY_ROOT: &str = "org.gapimage.verity.root";
    /// Digest of the blob that the tree covers.
    pub const VERITY_DATA: &str = "org.gapimage.verity.data";
    /// Type of the predicate of an in-toto statement, as BuildKit and others note it.
    pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
    /// Digest of the mount manifest of the image that the boot artifact starts.
    pub const BOOT_OS: &str = "org.gapimage.boot.os";
}

/// Stands for a digest that is not known yet.
pub const PLACEHOLDER: Digest = Digest::from_bytes([0; 32]);

/// The configuration blob of every artifact.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// Why a document cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// The source date has no RFC 3339 form.
    #[error("the source date {0} (seconds since 1970) lies outside the years -9999 to 9999")]
    Date(i64),
    /// Two images would be loaded under one name.
    #[error("two images would both be loaded as {0}; rename one of them")]
    SameTag(String),
}

/// A reference to a blob (image-spec, "OCI Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Notes, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What an image runs on, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// Architecture in Go's naming.
    pub architecture: String,
    /// Operating system in Go's naming.
    pub os: String,
}

impl Platform {
    /// Linux on `arch`, which may be in the kernel's naming (`x86_64`, `aarch64`).
    pub fn linux(arch: &str) -> Self {
        let architecture = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned() }
    }
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of a document held in memory.
    pub fn of(media_type: &str, document: &[u8]) -> Self {
        Self::new(media_type, Digest::of(document), document.len() as u64)
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// With a platform.
    #[must_use]
    pub fn on(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// With an artifact type.
    #[must_use]
    pub fn of_type(mut self, artifact_type: &str) -> Self {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }
}

/// The canonical encoding of a document.
fn encode(document: &impl Serialize) -> Vec<u8> {
    // The documents here have string keys and no floating-point numbers, so nothing can fail.
    serde_json::to_vec(document).unwrap_or_default()
}

/// RFC 3339 in UTC.
fn rfc3339(seconds: i64) -> Result<String, OciError> {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).map_err(|_| OciError::Date(seconds))
}

#[cfg(test)]
mod tests;
