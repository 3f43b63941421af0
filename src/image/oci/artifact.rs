//! Artifact manifests: what mounts an image, what the firmware starts.

use super::{Annotations, Descriptor, EMPTY_CONFIG, annotation, encode, image::Manifest, media_type};
use gap_format::Digest;

/// A blob that is mounted, and the verity tree over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveredBlob {
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Root digest of the tree.
    pub root: Digest,
    /// Digest of the tree's blob.
    pub tree: Digest,
    /// Length of the tree's blob in bytes.
    pub tree_size: u64,
}

/// A part of the boot artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPart {
    /// Its type, such as [`media_type::ESP`].
    pub media_type: &'static str,
    /// A name for people.
    pub title: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
}

/// The manifest of an artifact: no configuration, blobs as layers.
pub fn artifact_manifest(
    artifact_type: &str,
    subject: Option<&Descriptor>,
    blobs: Vec<Descriptor>,
    annotations: Annotations,
) -> Vec<u8> {
    encode(&Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST,
        artifact_type: Some(artifact_type),
        config: Descriptor::of(media_type::EMPTY, EMPTY_CONFIG),
        layers: blobs,
        subject: subject.cloned(),
        annotations,
    })
}

/// The mount manifest of the image whose manifest `image` describes: the EROFS metadata, then one verity tree per
/// device in the order of the devices, that is of the metadata and of each layer from the lowest.
pub fn mount_manifest(image: &Descriptor, metadata: &CoveredBlob, layers: &[CoveredBlob]) -> Vec<u8> {
    let mut blobs = vec![Descriptor::new(media_type::EROFS, metadata.digest, metadata.size)];
    blobs.extend([metadata].into_iter().chain(layers).map(|covered| {
        Descriptor::new(media_type::VERITY, covered.tree, covered.tree_size)
            .annotated(annotation::VERITY_ROOT, covered.root.to_string())
            .annotated(annotation::VERITY_DATA, covered.digest.to_string())
    }));
    artifact_manifest(media_type::MOUNT, Some(image), blobs, Annotations::new())
}

/// The boot manifest: what the firmware starts, and the mount manifest of the image that it starts in turn.
pub fn boot_manifest(parts: &[BootPart], os: &Digest) -> Vec<u8> {
    let blobs = parts
        .iter()
        .map(|part| Descriptor::new(part.media_type, part.digest, part.size).annotated(annotation::TITLE, &part.title));
    let annotations = [(annotation::BOOT_OS.to_owned(), os.to_string())].into();
    artifact_manifest(media_type::BOOT, None, blobs.collect(), annotations)
}
