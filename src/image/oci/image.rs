//! Image configuration and image manifest.

use super::{Annotations, Descriptor, OciError, Platform, annotation, encode, media_type, rfc3339};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is known of an image beside its layers.
#[derive(Debug, Clone, Default)]
pub struct ImageInfo {
    /// Its name in the recipe; the title, and the name that one asks an archive for.
    pub name: String,
    /// Version of the release.
    pub version: String,
    /// Source date, seconds since 1970.
    pub created: i64,
    /// Architecture, in the recipe's naming (`x86_64`).
    pub architecture: String,
    /// Revision of the recipe's source.
    pub revision: Option<String>,
    /// Where the recipe's source is found.
    pub source: Option<String>,
    /// SPDX licence expression.
    pub licenses: Option<String>,
    /// What it is, where it is more than an image: see [`media_type::MODEL`].
    pub artifact_type: Option<&'static str>,
    /// How a container of it runs.
    pub run: RunSettings,
}

/// How a container runs. What is empty is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunSettings {
    /// User, or `user:group`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=VALUE` each, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program that is always run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program where there is no entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directory it starts in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its name in the recipe.
    pub name: String,
    /// Digest of its tar; [`super::PLACEHOLDER`] while it is not known.
    pub digest: Digest,
    /// Length of its tar in bytes.
    pub size: u64,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: &'a RunSettings,
    rootfs: RootFs,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: String,
}

/// The image configuration. Layers are uncompressed, so their digests are also the `diff_ids`.
///
/// # Errors
/// [`OciError::Date`] if the source date cannot be written.
pub fn config(info: &ImageInfo, layers: &[LayerBlob]) -> Result<Vec<u8>, OciError> {
    let created = rfc3339(info.created)?;
    let platform = Platform::linux(&info.architecture);
    // Readers refuse an image whose history does not tell of each layer.
    let history = layers.iter().map(|layer| History { created: &created, created_by: format!("layer {}", layer.name) });
    Ok(encode(&Config {
        created: &created,
        architecture: &platform.architecture,
        os: &platform.os,
        config: &info.run,
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.digest).collect() },
        history: history.collect(),
    }))
}

/// The manifest of an image, for the configuration that [`config`] made.
///
/// # Errors
/// [`OciError::Date`] if the source date cannot be written.
pub fn image_manifest(info: &ImageInfo, config: &Descriptor, layers: &[LayerBlob]) -> Result<Vec<u8>, OciError> {
    let of_model = format!("model/{}/", info.name);
    let layers = layers.iter().map(|layer| {
        let blob =
            Descriptor::new(media_type::LAYER, layer.digest, layer.size).annotated(annotation::TITLE, &layer.name);
        // The small files lie in one layer, which is at no path.
        let path = layer.name.strip_prefix(&of_model).filter(|path| *path != crate::layer::model::SMALL);
        match path.filter(|_| info.artifact_type == Some(media_type::MODEL)) {
            Some(path) => blob.annotated(annotation::MODEL_PATH, path),
            None => blob,
        }
    });
    Ok(encode(&Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST,
        artifact_type: info.artifact_type,
        config: config.clone(),
        layers: layers.collect(),
        subject: None,
        annotations: annotations(info)?,
    }))
}

/// An OCI manifest, of an image or an artifact.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    pub schema_version: u32,
    pub media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<&'a str>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

fn annotations(info: &ImageInfo) -> Result<Annotations, OciError> {
    let known = [
        (annotation::CREATED, Some(rfc3339(info.created)?)),
        (annotation::VERSION, Some(info.version.clone())),
        (annotation::REVISION, info.revision.clone()),
        (annotation::SOURCE, info.source.clone()),
        (annotation::LICENSES, info.licenses.clone()),
        (annotation::TITLE, Some(info.name.clone())),
        (annotation::REF_NAME, Some(info.name.clone())),
    ];
    Ok(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}
