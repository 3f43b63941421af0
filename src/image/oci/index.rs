//! What an archive starts with: `oci-layout`, `index.json`, and docker's `manifest.json`.

use super::{Annotations, Descriptor, OciError, encode, media_type};
use gap_format::Digest;
use serde::Serialize;
use std::collections::BTreeSet;

/// Longest tag of an image reference.
const TAG_MAX: usize = 128;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
}

/// `index.json`: all manifests, in the order given. Images carry [`super::annotation::REF_NAME`].
pub fn index(manifests: &[Descriptor], annotations: &Annotations) -> Vec<u8> {
    encode(&Index { schema_version: 2, media_type: media_type::INDEX, manifests, annotations })
}

/// The file `oci-layout`.
pub const fn layout() -> &'static [u8] {
    br#"{"imageLayoutVersion":"1.0.0"}"#
}

/// An image as docker's archives list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerImage {
    /// The name it is loaded under; see [`repo_tag`].
    pub repo_tag: String,
    /// Digest of the configuration.
    pub config: Digest,
    /// Digests of the layers, the lowest first.
    pub layers: Vec<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry<'a> {
    config: String,
    repo_tags: [&'a str; 1],
    layers: Vec<String>,
}

/// `manifest.json`, with which `podman load` and `docker load` take all images of an archive at once.
///
/// # Errors
/// [`OciError::SameTag`] if two images would be loaded under one name.
pub fn docker_manifest(images: &[DockerImage]) -> Result<Vec<u8>, OciError> {
    let mut tags = BTreeSet::new();
    for image in images {
        if !tags.insert(&image.repo_tag) {
            return Err(OciError::SameTag(image.repo_tag.clone()));
        }
    }
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.to_hex());
    let entries = images.iter().map(|image| DockerEntry {
        config: blob(&image.config),
        repo_tags: [&image.repo_tag],
        layers: image.layers.iter().map(blob).collect(),
    });
    Ok(encode(&entries.collect::<Vec<_>>()))
}

/// `NAME:VERSION` within docker's grammar of references: the name in lower-case letters, digits and single
/// separators, a slash between parts; the version in letters, digits and `._-`. Anything else becomes a hyphen.
pub fn repo_tag(name: &str, version: &str) -> String {
    let parts: Vec<String> = name.split('/').map(name_part).filter(|part| !part.is_empty()).collect();
    let name = if parts.is_empty() { "image".to_owned() } else { parts.join("/") };
    let mut tag: String = version
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(TAG_MAX)
        .collect();
    tag = tag.trim_start_matches(['.', '-']).to_owned();
    if tag.is_empty() {
        tag.push_str("latest");
    }
    format!("{name}:{tag}")
}

/// One part of a repository name: runs of what is no letter or digit become one hyphen, none at either end. A dot
/// goes too, because a dot in the first part would make it the name of a registry.
fn name_part(part: &str) -> String {
    let words = part.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}
