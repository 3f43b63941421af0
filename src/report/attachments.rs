//! The documents that an artifact carries about itself.

use super::{
    checklist, jobs, licences,
    origins::{BOOT, Origins},
    provenance, sbom, trials,
};
use crate::{
    image::oci::{Annotations, annotation},
    pack::{Attachment, Digests, Subject},
};
use gap_handover::declared;

/// File name of the provenance.
const PROVENANCE: &str = "provenance.intoto.json";
/// File name of the licence report.
const LICENCES: &str = "licenses.json";
/// File name of the checklist.
const CHECKLIST: &str = "checklist.json";
/// File name of the list of passed tests.
const TESTS: &str = "tests.json";

/// All documents about the release: a bill of materials for each image and for what the firmware starts; one provenance, one
/// licence report and one checklist about all of them; the tests about the images in which some were tried; and what an
/// appliance with jobs is told of them.
pub fn attachments<'a>(origins: &'a Origins<'a>) -> Vec<Attachment<'a>> {
    let images = origins.recipe.images.iter().enumerate();
    let mut attachments: Vec<Attachment<'a>> = images
        .clone()
        .map(|(number, image)| {
            let subject = vec![Subject::Image(number)];
            let title = format!("{}.spdx.json", image.name);
            attachment(sbom::MEDIA_TYPE, title, subject, move |digests| sbom::of_image(origins, number, digests))
        })
        .collect();
    let mut all: Vec<Subject> = images.map(|(number, _)| Subject::Image(number)).collect();
    if origins.boot_image().is_some() {
        let (subject, title) = (vec![Subject::Boot], format!("{BOOT}.spdx.json"));
        attachments.push(attachment(sbom::MEDIA_TYPE, title, subject, |digests| sbom::of_boot(origins, digests)));
        if !origins.recipe.jobs.is_empty() {
            let (subject, title) = (vec![Subject::Boot], declared::TITLE.to_owned());
            attachments.push(attachment(declared::MEDIA_TYPE, title, subject, |_| jobs::document(origins.recipe)));
        }
        all.push(Subject::Boot);
    }
    let title = PROVENANCE.to_owned();
    let mut provenance =
        attachment(provenance::MEDIA_TYPE, title, all.clone(), |digests| provenance::statement(origins, digests));
    provenance.annotations.insert(annotation::PREDICATE_TYPE.to_owned(), provenance::PREDICATE_TYPE.to_owned());
    attachments.push(provenance);
    attachments.push(attachment(licences::MEDIA_TYPE, LICENCES.to_owned(), all.clone(), |_| licences::report(origins)));
    attachments.push(attachment(checklist::MEDIA_TYPE, CHECKLIST.to_owned(), all, |_| checklist::document(origins)));
    let tested = tested(origins);
    if !tested.is_empty() {
        attachments.push(attachment(trials::MEDIA_TYPE, TESTS.to_owned(), tested, |_| trials::document(origins)));
    }
    attachments
}

/// The images in which tests were tried.
fn tested(origins: &Origins<'_>) -> Vec<Subject> {
    let is_tested = |name: &str| origins.tests.iter().any(|test| test.image == name);
    let images = origins.recipe.images.iter().enumerate().filter(|(_, image)| is_tested(&image.name));
    images.map(|(number, _)| Subject::Image(number)).collect()
}

/// The title is the name of the file that clients of registries write the document to.
fn attachment<'a>(
    media_type: &'static str,
    title: String,
    subjects: Vec<Subject>,
    make: impl Fn(&Digests) -> Vec<u8> + 'a,
) -> Attachment<'a> {
    let annotations: Annotations = [(annotation::TITLE.to_owned(), title)].into();
    Attachment { media_type, annotations, subjects, make: Box::new(make) }
}
