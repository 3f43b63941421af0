//! The documents that an artifact carries about itself.

use super::{origins::Origins, sbom};
use crate::{
    image::oci::{Annotations, annotation},
    pack::{Attachment, Subject},
};

/// All documents about the release.
pub fn attachments<'a>(origins: &'a Origins<'a>) -> Vec<Attachment<'a>> {
    let images = origins.recipe.images.iter().enumerate().map(|(number, image)| Attachment {
        media_type: sbom::MEDIA_TYPE,
        annotations: titled(format!("{}.spdx.json", image.name)),
        subjects: vec![Subject::Image(number)],
        make: Box::new(move |digests| sbom::of_image(origins, number, digests)),
    });
    let mut attachments: Vec<Attachment<'a>> = images.collect();
    if origins.boot_image().is_some() {
        attachments.push(Attachment {
            media_type: sbom::MEDIA_TYPE,
            annotations: titled(format!("{}-boot.spdx.json", origins.release.name)),
            subjects: vec![Subject::Boot],
            make: Box::new(move |digests| sbom::of_boot(origins, digests)),
        });
    }
    attachments
}

/// The title is the name of the file that clients of registries write the document to.
fn titled(title: String) -> Annotations {
    [(annotation::TITLE.to_owned(), title)].into()
}
