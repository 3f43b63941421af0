//! All documents of one image at once, as a packer wants them: first for their lengths, then for their bytes.

use super::{
    CoveredBlob, Descriptor, DockerImage, ImageInfo, LayerBlob, OciError, PLACEHOLDER, Platform, annotation, config,
    image_manifest, media_type, mount_manifest, repo_tag,
};
use gap_format::Digest;

/// A layer and the verity tree over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedLayer {
    /// Its name in the recipe.
    pub name: String,
    /// Its tar and the tree.
    pub blob: CoveredBlob,
}

/// A document and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its type.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The documents of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDocuments {
    /// Image configuration.
    pub config: Document,
    /// Image manifest.
    pub manifest: Document,
    /// Mount manifest.
    pub mount: Document,
    name: String,
    version: String,
    platform: Platform,
    layers: Vec<Digest>,
}

impl CoveredBlob {
    /// A blob of which only the lengths are known yet.
    pub const fn of_size(size: u64, tree_size: u64) -> Self {
        Self { digest: PLACEHOLDER, size, root: PLACEHOLDER, tree: PLACEHOLDER, tree_size }
    }
}

impl Document {
    /// A descriptor of it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.media_type, &self.bytes)
    }
}

impl ImageDocuments {
    /// The documents of the image with these layers, the lowest first, and this EROFS metadata. With the same
    /// lengths and names but other digests they are as long: make them of [`CoveredBlob::of_size`] to reserve space.
    ///
    /// # Errors
    /// [`OciError::Date`] if the source date cannot be written.
    pub fn new(info: &ImageInfo, metadata: &CoveredBlob, layers: &[MountedLayer]) -> Result<Self, OciError> {
        let blobs: Vec<LayerBlob> = layers
            .iter()
            .map(|layer| LayerBlob { name: layer.name.clone(), digest: layer.blob.digest, size: layer.blob.size })
            .collect();
        let config = Document { media_type: media_type::CONFIG, bytes: config(info, &blobs)? };
        let manifest =
            Document { media_type: media_type::MANIFEST, bytes: image_manifest(info, &config.descriptor(), &blobs)? };
        let covered: Vec<CoveredBlob> = layers.iter().map(|layer| layer.blob.clone()).collect();
        let mount = Document {
            media_type: media_type::MANIFEST,
            bytes: mount_manifest(&manifest.descriptor(), metadata, &covered),
        };
        Ok(Self {
            config,
            manifest,
            mount,
            name: info.name.clone(),
            version: info.version.clone(),
            platform: Platform::linux(&info.architecture),
            layers: blobs.into_iter().map(|layer| layer.digest).collect(),
        })
    }

    /// What the index lists: the image by its name, and its mount manifest.
    pub fn index_entries(&self) -> [Descriptor; 2] {
        [
            self.manifest.descriptor().annotated(annotation::REF_NAME, &self.name).on(self.platform.clone()),
            self.mount.descriptor().of_type(media_type::MOUNT),
        ]
    }

    /// What docker's list holds.
    pub fn docker_image(&self) -> DockerImage {
        DockerImage {
            repo_tag: repo_tag(&self.name, &self.version),
            config: self.config.descriptor().digest,
            layers: self.layers.clone(),
        }
    }
}
