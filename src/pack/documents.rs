//! The JSON documents of an artifact: configurations, manifests, index.
//!
//! They are made twice: first with placeholders for digests that are not known yet, for their lengths, then for good.

use super::{Inputs, PackError, attachments::Attached};
use crate::image::oci::{
    self, Annotations, BootPart, CoveredBlob, Descriptor, EMPTY_CONFIG, ImageDocuments, ImageInfo, MountedLayer,
    annotation, media_type,
};
use gap_format::Digest;

/// One image of the artifact.
#[derive(Debug, Clone)]
pub struct Image {
    /// What its documents say of it.
    pub info: ImageInfo,
    /// Its layers by number, bottom to top.
    pub layers: Vec<usize>,
}

/// What is mounted: the metadata of each image and each layer, with digests or placeholders.
pub(super) struct Covered {
    pub metadata: Vec<CoveredBlob>,
    pub layers: Vec<CoveredBlob>,
}

/// All documents of the artifact.
pub(super) struct Documents {
    pub images: Vec<ImageDocuments>,
    /// Empty when nothing boots.
    pub boot: Vec<u8>,
    annotations: Annotations,
}

impl Documents {
    /// The documents that follow from `covered`; the boot manifest is made with a placeholder for the partition.
    pub fn new(inputs: &Inputs<'_>, covered: &Covered) -> Result<Self, PackError> {
        let mounted = |&number: &usize| {
            let (layer, blob) = inputs.layers.get(number).zip(covered.layers.get(number))?;
            Some(MountedLayer { name: layer.name.clone(), blob: blob.clone() })
        };
        let images = inputs.images.iter().zip(&covered.metadata).map(|(image, metadata)| {
            let layers: Vec<MountedLayer> = image.layers.iter().filter_map(mounted).collect();
            ImageDocuments::new(&image.info, metadata, &layers)
        });
        let release = &inputs.release;
        let annotations = [
            (annotation::TITLE.to_owned(), release.name.clone()),
            (annotation::VERSION.to_owned(), release.version.clone()),
            (annotation::CREATED.to_owned(), release.source_date.to_string()),
        ];
        let documents =
            Self { images: images.collect::<Result<_, _>>()?, boot: Vec::new(), annotations: annotations.into() };
        Ok(documents.with_esp(inputs, Some(oci::PLACEHOLDER)))
    }

    /// The same with the boot manifest for this partition.
    pub fn with_esp(mut self, inputs: &Inputs<'_>, esp: Option<Digest>) -> Self {
        if let Some((boot, digest)) = inputs.boot.as_ref().zip(esp) {
            let part = BootPart {
                media_type: media_type::ESP,
                title: "EFI system partition".to_owned(),
                digest,
                size: boot.size,
            };
            self.boot = oci::boot_manifest(&[part], &self.mount_of(boot.image));
        }
        self
    }

    /// Digest of the mount manifest of an image.
    pub fn mount_of(&self, image: usize) -> Digest {
        Digest::of(self.images.get(image).map(|image| image.mount.bytes.as_slice()).unwrap_or_default())
    }

    /// `index.json`.
    pub fn index(&self, attached: &Attached) -> Vec<u8> {
        let (mut manifests, mounts): (Vec<_>, Vec<_>) =
            self.images.iter().map(|image| image.index_entries().into()).unzip();
        manifests.extend(mounts);
        if !self.boot.is_empty() {
            manifests.push(Descriptor::of(media_type::MANIFEST, &self.boot).of_type(media_type::BOOT));
        }
        manifests.extend(attached.index_entries());
        oci::index(&manifests, &self.annotations)
    }

    /// `manifest.json`, by which docker and podman load all images at once.
    pub fn docker(&self) -> Result<Vec<u8>, PackError> {
        let images = self.images.iter().map(ImageDocuments::docker_image);
        Ok(oci::docker_manifest(&images.collect::<Vec<_>>())?)
    }

    /// The blobs that are documents, but for the boot manifest, in the order of the artifact.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        let images = self.images.iter();
        let of_images =
            images.flat_map(|image| [image.config.bytes.as_slice(), &image.manifest.bytes, &image.mount.bytes]);
        std::iter::once(EMPTY_CONFIG).chain(of_images)
    }
}
