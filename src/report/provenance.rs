//! Where a release comes from: an in-toto statement with SLSA's provenance (v1) about the images and what the firmware
//! starts. `docs/provenance.md` says what its fields hold.
//!
//! There is no clock in it and no machine: the same inputs give the same statement, and what vouches for it is the signature
//! of the release that it lies in.

use super::{
    components::{Component, Pin},
    origins::{BOOT, Origins, Source},
};
use crate::{
    image::oci::PLACEHOLDER,
    lock::{Archive, Inputs},
    pack::Digests,
};
use gap_format::{Digest, statement, statement::Release};
use serde::Serialize;
use std::collections::BTreeMap;

/// Media type of an in-toto statement, and type of the artifact that carries it.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// Type of the predicate: SLSA provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How external parameters and dependencies are to be read.
const BUILD_TYPE: &str = "https://gapimage.dev/build/v1";
/// Whoever runs gapimage.
const BUILDER: &str = "https://gapimage.dev/builder/v1";

/// Digests by algorithm (in-toto, "DigestSet").
type DigestSet = BTreeMap<&'static str, String>;

/// A statement (in-toto attestation framework, v1).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

/// What was built how, and by whom (SLSA provenance, v1).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: Parameters<'a>,
    resolved_dependencies: Vec<Resource>,
}

/// What whoever builds decides.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters<'a> {
    recipe: Resource,
    definitions: Vec<Resource>,
    trust: Resource,
    release: &'a Release,
    images: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boots: Option<&'a str>,
}

#[derive(Serialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Serialize)]
struct Builder {
    id: &'static str,
    version: BTreeMap<&'static str, &'static str>,
}

/// Something that a digest pins (in-toto, "ResourceDescriptor"); sorted by name before all else, so that the order does not
/// hang on the digests of the artifact.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: DigestSet,
}

/// The statement about all images of a release and what the firmware starts.
pub fn statement(origins: &Origins<'_>, digests: &Digests) -> Vec<u8> {
    let images = origins.recipe.images.iter().map(|image| image.name.as_str());
    let statement = Statement {
        kind: statement::STATEMENT_TYPE,
        subject: subjects(origins, digests),
        predicate_type: PREDICATE_TYPE,
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: Parameters {
                    recipe: Resource::of(None, &origins.recipe.digest),
                    definitions: origins
                        .recipe
                        .definitions
                        .iter()
                        .map(|(path, it)| Resource::of(Some(path), it))
                        .collect(),
                    trust: Resource::of(None, &origins.trust),
                    release: &origins.release,
                    images: images.collect(),
                    boots: origins.recipe.boot_image().map(|image| image.name.as_str()),
                },
                resolved_dependencies: dependencies(origins, digests),
            },
            run_details: RunDetails {
                builder: Builder { id: BUILDER, version: [("gapimage", env!("CARGO_PKG_VERSION"))].into() },
            },
        },
    };
    // Strings, numbers and lists of them only, so nothing can fail.
    serde_json::to_vec(&statement).unwrap_or_default()
}

fn subjects(origins: &Origins<'_>, digests: &Digests) -> Vec<Resource> {
    let images = origins.recipe.images.iter().zip(&digests.images);
    let images = images.map(|(image, digest)| Resource::of(Some(&image.name), digest));
    let boot = digests.boot.iter().map(|digest| Resource::of(Some(BOOT), digest));
    images.chain(boot).collect()
}

/// Every row of the lock, each once.
fn dependencies(origins: &Origins<'_>, digests: &Digests) -> Vec<Resource> {
    let mut dependencies: Vec<Resource> = origins.lock.archives.iter().map(Resource::of_archive).collect();
    for source in origins.of_everything() {
        dependencies.extend(source.components.iter().map(Resource::of_component));
        dependencies.extend(Resource::of_files(&source, digests));
    }
    dependencies.sort();
    dependencies.dedup();
    dependencies
}

impl Resource {
    fn of(name: Option<&str>, digest: &Digest) -> Self {
        Self { name: name.map(str::to_owned), uri: None, digest: [("sha256", digest.to_hex())].into() }
    }

    fn of_archive(archive: &Archive) -> Self {
        Self::of(Some(&format!("InRelease of {} ({})", archive.suite, archive.codename)), &archive.sha256)
    }

    fn of_component(component: &Component) -> Self {
        let digest = match &component.pin {
            Pin::File(digest) => ("sha256", digest.to_hex()),
            // A hash over names and contents is not the hash of a file, and must not be taken for one.
            Pin::Sources(digest) => ("gapimageSources", digest.to_hex()),
            Pin::Commit(commit) => ("gitCommit", commit.clone()),
        };
        let name = match &component.pin {
            Pin::File(_) => component.file.clone(),
            Pin::Sources(_) => Some(format!("sources of {}", component.name)),
            Pin::Commit(_) => component.origin.clone(),
        };
        Self { name, uri: component.purl.as_ref().map(ToString::to_string), digest: [digest].into() }
    }

    /// Files beside the recipe, by the layer that they make. The lock learns it from the build, so the build is asked first.
    fn of_files(source: &Source<'_>, digests: &Digests) -> Option<Self> {
        let Inputs::Files(rows) = &source.locked.inputs else { return None };
        let digest = match source.tars.as_slice() {
            [tar] => digests.layers.get(*tar).copied().unwrap_or(PLACEHOLDER),
            _ => rows.layer,
        };
        Some(Self::of(Some(&format!("files of layer {}", source.locked.name)), &digest))
    }
}
