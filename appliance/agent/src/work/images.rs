//! The images of the release that this machine runs, mounted from the medium when they are needed.
//!
//! An image is found in the verified head by its name, its blobs are mapped through their hash trees by the code that
//! mapped the OS image (`gap-mapping`), and EROFS is mounted over them. A rotten block gives a read error.

use super::catalog::{ImageError, Images, RunSettings};
use crate::recheck::{MAX_DOCUMENT, Verified};
use gap_format::{Digest, oci::Manifest};
use gap_handover::declared::{self, Declared};
use gap_mapping::erofs;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Where images are mounted, each in a directory of its name.
const PLACE: &str = "run/gap/images";

/// The images of the release on the medium.
pub struct MediumImages {
    verified: Arc<Verified>,
    root: PathBuf,
    mounted: Mutex<BTreeMap<String, PathBuf>>,
}

/// The part of an image's configuration that starts programs.
#[derive(Default, Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: Settings,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl MediumImages {
    /// The images of this release; `root` stands for `/`.
    pub fn new(verified: Arc<Verified>, root: PathBuf) -> Self {
        Self { verified, root, mounted: Mutex::default() }
    }

    /// What the release declares; nothing where it has no such document.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn declared(&self) -> Result<Declared, String> {
        let Verified { release, medium, .. } = &*self.verified;
        let mut manifests = release.index().manifests.iter();
        let is_it = |kind: &Option<String>| kind.as_deref() == Some(declared::MEDIA_TYPE);
        let Some(entry) = manifests.find(|entry| is_it(&entry.artifact_type)) else { return Ok(Declared::default()) };
        let read = |digest: &Digest, max| {
            release.read_blob(medium, digest, max).map_err(|error| format!("reading {}: {error}", declared::TITLE))
        };
        let manifest = self.verified.manifest(&entry.digest)?;
        let blob = manifest.layers.first().ok_or("its manifest lists no document")?;
        Declared::parse(&read(&blob.digest, declared::MAX_LEN)?).map_err(|error| error.to_string())
    }

    /// The manifest of an image, and its digest.
    fn manifest(&self, image: &str) -> Result<(Digest, Manifest), ImageError> {
        let unknown = || ImageError::Unknown(image.to_owned());
        let entry = self.verified.release.index().by_name(image).ok_or_else(unknown)?;
        Ok((entry.digest, self.verified.manifest(&entry.digest).map_err(|error| failed(image, error))?))
    }

    fn mount(&self, image: &str) -> Result<PathBuf, ImageError> {
        let (digest, _) = self.manifest(image)?;
        let set = self.verified.mount_sets().flatten().find(|set| set.image == digest);
        let set = set.ok_or_else(|| failed(image, "the release does not say how"))?;
        let number = self.verified.device().map_err(|error| failed(image, error))?;
        let blobs = std::iter::once(&set.metadata).chain(&set.layers);
        let mapping = gap_mapping::map(&self.root, number, blobs).map_err(|error| failed(image, error))?;
        let at = self.root.join(PLACE).join(image);
        fs::create_dir_all(&at).map_err(|error| failed(image, error))?;
        erofs::mount(&mapping.devices, &at).map_err(|error| failed(image, error))?;
        Ok(at)
    }
}

impl Images for MediumImages {
    fn mounted(&self, image: &str) -> Result<PathBuf, ImageError> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = mounted.get(image) {
            return Ok(at.clone());
        }
        let at = self.mount(image)?;
        mounted.insert(image.to_owned(), at.clone());
        Ok(at)
    }

    fn own(&self) -> Result<String, ImageError> {
        let image = &self.verified.image;
        self.verified.name_of(image).ok_or_else(|| ImageError::Unknown(image.to_string()))
    }

    fn settings(&self, image: &str) -> Result<RunSettings, ImageError> {
        let Verified { release, medium, .. } = &*self.verified;
        let (_, manifest) = self.manifest(image)?;
        let bytes = release.read_blob(medium, &manifest.config.digest, MAX_DOCUMENT);
        let bytes = bytes.map_err(|error| failed(image, error))?;
        let ImageConfig { config } = serde_json::from_slice(&bytes).map_err(|error| failed(image, error))?;
        Ok(RunSettings {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            directory: config.working_dir.unwrap_or_default(),
        })
    }
}

fn failed(image: &str, error: impl ToString) -> ImageError {
    ImageError::Mount { image: image.to_owned(), reason: error.to_string() }
}
