//! Bills of materials: one SPDX document for each image, and one for what the firmware starts.
//!
//! Every text in it follows from recipe, lock and digests; its date is the source date. Its length does not depend on the
//! digests of the artifact.

mod spdx;

use super::{
    components::{Component, Pin, Role},
    origins::{BOOT, Origins, Source, Tar},
    purl::PackageUrl,
};
use crate::{
    image::oci::{PLACEHOLDER, Platform},
    pack::Digests,
    recipe::LayerKind,
};
use gap_format::Digest;
use spdx::{Checksum, CreationInfo, DOCUMENT, Document, ExternalRef, ExtractedLicence, Package, Relationship};
use std::collections::{BTreeMap, BTreeSet};

/// Media type of an SPDX document, and type of the artifact that carries one.
pub const MEDIA_TYPE: &str = "application/spdx+json";
/// What the namespace of a document begins with; a digest follows.
const NAMESPACE: &str = "https://gapimage.dev/spdx/v1/";
/// The package that a document describes.
const SUBJECT: &str = "SPDXRef-subject";

/// The bill of materials of an image.
pub fn of_image(origins: &Origins<'_>, image: usize, digests: &Digests) -> Vec<u8> {
    let Some(recipe) = origins.recipe.images.get(image) else { return Vec::new() };
    let digest = digests.images.get(image).copied().unwrap_or(PLACEHOLDER);
    let mut bill = Bill::new(image_package(origins, SUBJECT, &recipe.name, &digest));
    for tar in origins.images.get(image).into_iter().flatten() {
        bill.add_tar(tar, origins, digests);
    }
    for source in origins.of_image(image) {
        bill.add_source(&source);
    }
    bill.encode(origins, &recipe.name)
}

/// The bill of materials of what the firmware starts. Kernel and modules are those of the image that it starts in turn.
pub fn of_boot(origins: &Origins<'_>, digests: &Digests) -> Vec<u8> {
    let mut subject = Package::new(SUBJECT.to_owned(), BOOT.to_owned());
    subject.version_info = Some(origins.release.version.clone());
    subject.checksums.extend(digests.boot.as_ref().map(Checksum::sha256));
    subject.primary_package_purpose = Some("OPERATING-SYSTEM");
    let mut bill = Bill::new(subject);
    if let Some((number, image)) = origins.boot_image().and_then(|it| Some((it, origins.recipe.images.get(it)?))) {
        let digest = digests.images.get(number).copied().unwrap_or(PLACEHOLDER);
        let mut package = image_package(origins, "SPDXRef-image", &image.name, &digest);
        package.source_info = Some("kernel and modules of the initial file system are this image's".to_owned());
        bill.relate(SUBJECT, "GENERATED_FROM", &package.id);
        bill.packages.push(package);
    }
    for source in origins.of_boot() {
        bill.add_source(&source);
    }
    bill.encode(origins, BOOT)
}

fn image_package(origins: &Origins<'_>, id: &str, name: &str, digest: &Digest) -> Package {
    let mut package = Package::new(id.to_owned(), name.to_owned());
    package.version_info = Some(origins.release.version.clone());
    package.checksums.push(Checksum::sha256(digest));
    let mut purl = PackageUrl::new("oci", None, name, Some(&digest.to_string()));
    purl.qualify("arch", &Platform::linux(&origins.release.architecture).architecture);
    package.external_refs.push(ExternalRef::purl(purl.to_string()));
    package.primary_package_purpose = Some("CONTAINER");
    package
}

/// A document while it is written.
struct Bill {
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
    /// The components that are in it.
    known: BTreeSet<String>,
    /// `LicenseRef-…` and the text that stands behind it.
    licences: BTreeMap<String, String>,
}

impl Bill {
    fn new(subject: Package) -> Self {
        let relationships = vec![Relationship::new(DOCUMENT, "DESCRIBES", SUBJECT)];
        Self { packages: vec![subject], relationships, known: BTreeSet::new(), licences: BTreeMap::new() }
    }

    fn relate(&mut self, from: &str, kind: &'static str, to: &str) {
        self.relationships.push(Relationship::new(from, kind, to));
    }

    /// A layer's tar, whatever is in it.
    fn add_tar(&mut self, tar: &Tar<'_>, origins: &Origins<'_>, digests: &Digests) {
        let mut package = Package::new(tar_id(tar.number), format!("layer {}", tar.name));
        package.checksums.push(Checksum::sha256(digests.layers.get(tar.number).unwrap_or(&PLACEHOLDER)));
        if let Some(LayerKind::Run(run)) = origins.recipe.layer(&tar.locked.name).map(|layer| &layer.kind) {
            package.source_info = Some(format!("made by a program on the layers {}", run.on.join(", ")));
        }
        package.primary_package_purpose = Some("ARCHIVE");
        self.relate(SUBJECT, "CONTAINS", &package.id);
        self.packages.push(package);
    }

    /// What the rows of one layer stand for.
    fn add_source(&mut self, source: &Source<'_>) {
        for component in &source.components {
            let id = component_id(component.id.as_str());
            match &component.role {
                Role::Contained => {
                    self.relate(SUBJECT, "CONTAINS", &id);
                    // Of a layer in several tars nobody knows here which of them has what.
                    if let [tar] = source.tars.as_slice() {
                        self.relate(&tar_id(*tar), "CONTAINS", &id);
                    }
                }
                Role::BuiltInto(binary) => self.relate(&component_id(binary.as_str()), "GENERATED_FROM", &id),
                Role::ToolOf(binary) => self.relate(&id, "BUILD_TOOL_OF", &component_id(binary.as_str())),
                Role::Pinned => continue,
            }
            self.add_component(id, component);
        }
    }

    fn add_component(&mut self, id: String, component: &Component) {
        if !self.known.insert(id.clone()) {
            return;
        }
        let mut package = Package::new(id, component.name.clone());
        package.version_info.clone_from(&component.version);
        package.package_file_name.clone_from(&component.file);
        package.source_info.clone_from(&component.origin);
        package.external_refs.extend(component.purl.iter().map(|purl| ExternalRef::purl(purl.to_string())));
        match &component.pin {
            Pin::File(digest) => package.checksums.push(Checksum::sha256(digest)),
            // SPDX has checksums of files only.
            Pin::Sources(digest) => add_note(&mut package.source_info, &format!("sources {digest}")),
            Pin::Commit(commit) => add_note(&mut package.source_info, &format!("commit {commit}")),
        }
        if !component.licence.is_unknown() {
            package.license_declared = component.licence.to_string();
        }
        for (id, text) in component.licence.references() {
            let unread = || format!("{id}: the text is in the copyright files of the packages that declare it");
            let text = text.map_or_else(unread, str::to_owned);
            self.licences.entry(id.to_owned()).or_insert(text);
        }
        self.packages.push(package);
    }

    fn encode(self, origins: &Origins<'_>, name: &str) -> Vec<u8> {
        let extracted = |(license_id, extracted_text)| ExtractedLicence { license_id, extracted_text };
        let mut document = Document {
            spdx_version: spdx::VERSION,
            data_license: "CC0-1.0",
            id: DOCUMENT,
            name: name.to_owned(),
            document_namespace: format!("{NAMESPACE}{}", PLACEHOLDER.to_hex()),
            creation_info: CreationInfo {
                created: origins.release.source_date.to_string(),
                creators: vec![format!("Tool: gapimage-{}", env!("CARGO_PKG_VERSION"))],
                license_list_version: list_version(),
            },
            has_extracted_licensing_infos: self.licences.into_iter().map(extracted).collect(),
            packages: self.packages,
            relationships: self.relationships,
        };
        // No two documents may share a namespace, so it is a hash of all the rest.
        document.document_namespace = format!("{NAMESPACE}{}", Digest::of(&bytes(&document)).to_hex());
        bytes(&document)
    }
}

fn bytes(document: &Document) -> Vec<u8> {
    // Strings and booleans only, so nothing can fail.
    serde_json::to_vec(document).unwrap_or_default()
}

fn component_id(id: &str) -> String {
    format!("SPDXRef-{id}")
}

fn tar_id(number: usize) -> String {
    format!("SPDXRef-layer-{number}")
}

fn add_note(notes: &mut Option<String>, note: &str) {
    *notes = Some(match notes.take() {
        Some(before) => format!("{before}; {note}"),
        None => note.to_owned(),
    });
}

/// The version of SPDX' list of licences that identifiers are from, as the format writes it: `3.29`.
fn list_version() -> String {
    ::spdx::license_version().split('.').take(2).collect::<Vec<_>>().join(".")
}
