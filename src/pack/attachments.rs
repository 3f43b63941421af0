//! Documents about what is in the artifact: bills of materials, provenance, reports.
//!
//! Each is one blob. For each thing that it is about there is an artifact manifest with that thing as its `subject`, so
//! that a registry lists it among the referrers of the image (distribution-spec 1.1, "Listing Referrers").

use super::{
    Inputs,
    documents::{Covered, Documents},
};
use crate::image::oci::{Annotations, Descriptor, artifact_manifest, media_type};
use gap_format::Digest;

/// A document about images of the artifact, or about what the firmware starts.
pub struct Attachment<'a> {
    /// The type of the document, and of the artifact that carries it.
    pub media_type: &'static str,
    /// Notes on it: at least a title.
    pub annotations: Annotations,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// Makes its bytes. How many they are must not depend on the digests.
    pub make: Box<MakeDocument<'a>>,
}

/// Makes a document about things with these digests.
pub type MakeDocument<'a> = dyn Fn(&Digests) -> Vec<u8> + 'a;

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The image of this number.
    Image(usize),
    /// What the firmware starts; nothing where nothing boots.
    Boot,
}

/// The digests of what documents are about, or placeholders for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Each layer's tar.
    pub layers: Vec<Digest>,
    /// Each image's manifest.
    pub images: Vec<Digest>,
    /// The manifest of what the firmware starts.
    pub boot: Option<Digest>,
}

/// All attachments of an artifact.
pub(super) struct Attached(Vec<Made>);

/// A document and the manifests that carry it.
struct Made {
    media_type: &'static str,
    annotations: Annotations,
    document: Vec<u8>,
    manifests: Vec<Vec<u8>>,
}

impl Attached {
    /// The attachments that follow from the other documents.
    pub fn new(inputs: &Inputs<'_>, documents: &Documents, covered: &Covered) -> Self {
        let boot = (!documents.boot.is_empty()).then(|| Descriptor::of(media_type::MANIFEST, &documents.boot));
        let digests = Digests {
            layers: covered.layers.iter().map(|layer| layer.digest).collect(),
            images: documents.images.iter().map(|image| image.manifest.descriptor().digest).collect(),
            boot: boot.as_ref().map(|boot| boot.digest),
        };
        let subject = |subject: &Subject| match *subject {
            Subject::Image(number) => documents.images.get(number).map(|image| image.manifest.descriptor()),
            Subject::Boot => boot.clone(),
        };
        let made = inputs.attachments.iter().map(|attachment| {
            let document = (attachment.make)(&digests);
            let mut blob = Descriptor::of(attachment.media_type, &document);
            blob.annotations.clone_from(&attachment.annotations);
            let manifest = |about: Descriptor| {
                let annotations = attachment.annotations.clone();
                artifact_manifest(attachment.media_type, Some(&about), vec![blob.clone()], annotations)
            };
            Made {
                media_type: attachment.media_type,
                annotations: attachment.annotations.clone(),
                manifests: attachment.subjects.iter().filter_map(subject).map(manifest).collect(),
                document,
            }
        });
        Self(made.collect())
    }

    /// What the index lists. As a registry would, it repeats the notes of a manifest.
    pub fn index_entries(&self) -> impl Iterator<Item = Descriptor> {
        self.0.iter().flat_map(|made| {
            made.manifests.iter().map(|manifest| {
                let mut entry = Descriptor::of(media_type::MANIFEST, manifest).of_type(made.media_type);
                entry.annotations.clone_from(&made.annotations);
                entry
            })
        })
    }

    /// The blobs in the order of the artifact.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|made| std::iter::once(&made.document).chain(&made.manifests)).map(Vec::as_slice)
    }
}
