//! The JSON documents of an artifact: configurations, manifests, index.
//!
//! They are made twice: first with placeholders for digests that are not known yet, for their lengths, then for good.

use super::{Inputs, PackError, layer_blobs};
use crate::image::oci::{
    self, Annotations, BootPart, CoveredBlob, Descriptor, DockerImage, EMPTY_CONFIG, ImageInfo, Platform, annotation,
    media_type,
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

/// The documents of one image.
pub(super) struct ImageDocuments {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub mount: Vec<u8>,
    info: ImageInfo,
    layers: Vec<Digest>,
}

/// All documents of the artifact.
pub(super) struct Documents {
    pub images: Vec<ImageDocuments>,
    /// Empty when nothing boots.
    pub boot: Vec<u8>,
    platform: Platform,
    annotations: Annotations,
}

impl Documents {
    /// The documents that follow from `covered`; the boot manifest is made with a placeholder for the partition.
    pub fn new(inputs: &Inputs<'_>, covered: &Covered) -> Result<Self, PackError> {
        let images = inputs.images.iter().enumerate().map(|(number, image)| {
            let layers = layer_blobs(inputs, image, covered);
            let config = oci::config(&image.info, &layers)?;
            let manifest = oci::image_manifest(&image.info, &Descriptor::of(media_type::CONFIG, &config), &layers)?;
            let subject = Descriptor::of(media_type::MANIFEST, &manifest);
            let devices: Vec<_> = image.layers.iter().filter_map(|&layer| covered.layers.get(layer).cloned()).collect();
            let metadata = covered.metadata.get(number);
            let mount = metadata.map(|metadata| oci::mount_manifest(&subject, metadata, &devices)).unwrap_or_default();
            let layers = layers.into_iter().map(|layer| layer.digest).collect();
            Ok(ImageDocuments { config, manifest, mount, info: image.info.clone(), layers })
        });
        let release = &inputs.release;
        let annotations = [
            (annotation::TITLE.to_owned(), release.name.clone()),
            (annotation::VERSION.to_owned(), release.version.clone()),
            (annotation::CREATED.to_owned(), release.source_date.to_string()),
        ];
        let documents = Self {
            images: images.collect::<Result<_, PackError>>()?,
            boot: Vec::new(),
            platform: Platform::linux(&release.architecture),
            annotations: annotations.into(),
        };
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
        Digest::of(self.images.get(image).map(|image| image.mount.as_slice()).unwrap_or_default())
    }

    /// `index.json`.
    pub fn index(&self) -> Vec<u8> {
        let mut manifests = Vec::new();
        for image in &self.images {
            let manifest = Descriptor::of(media_type::MANIFEST, &image.manifest)
                .annotated(annotation::REF_NAME, &image.info.name)
                .on(self.platform.clone());
            manifests.push(manifest);
        }
        for image in &self.images {
            manifests.push(Descriptor::of(media_type::MANIFEST, &image.mount).of_type(media_type::MOUNT));
        }
        if !self.boot.is_empty() {
            manifests.push(Descriptor::of(media_type::MANIFEST, &self.boot).of_type(media_type::BOOT));
        }
        oci::index(&manifests, &self.annotations)
    }

    /// `manifest.json`, by which docker and podman load all images at once.
    pub fn docker(&self) -> Result<Vec<u8>, PackError> {
        let images = self.images.iter().map(|image| DockerImage {
            repo_tag: oci::repo_tag(&image.info.name, &image.info.version),
            config: Digest::of(&image.config),
            layers: image.layers.clone(),
        });
        Ok(oci::docker_manifest(&images.collect::<Vec<_>>())?)
    }

    /// The blobs that are documents, but for the boot manifest, in the order of the artifact.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        let images = self.images.iter();
        let of_images = images.flat_map(|image| [image.config.as_slice(), &image.manifest, &image.mount]);
        std::iter::once(EMPTY_CONFIG).chain(of_images)
    }
}
