//! What the release brings: images, declared jobs, models and data sets.

use gap_handover::{Declared, declared::Place};
use std::{fs, io, path::PathBuf, sync::Arc};

/// How an image's programs are started unless a job says otherwise (OCI image-spec, `config`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSettings {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where it starts; `/` when empty.
    pub directory: String,
}

/// Why an image is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The release has none of this name.
    #[error("the release has no image `{0}`")]
    Unknown(String),
    /// It cannot be mounted.
    #[error("mounting the image `{image}`: {reason}")]
    Mount {
        /// Its name.
        image: String,
        /// Why.
        reason: String,
    },
}

impl ImageError {
    /// The image that is not there.
    pub fn image(&self) -> &str {
        match self {
            Self::Unknown(image) | Self::Mount { image, .. } => image,
        }
    }
}

/// The images of a release.
pub trait Images: Send + Sync {
    /// Where the image is mounted; it is when this returns.
    ///
    /// # Errors
    /// [`ImageError`].
    fn mounted(&self, image: &str) -> Result<PathBuf, ImageError>;

    /// The name of the image that the agent itself runs in.
    ///
    /// # Errors
    /// [`ImageError`] when the release gives it none.
    fn own(&self) -> Result<String, ImageError>;

    /// How its programs are started.
    ///
    /// # Errors
    /// [`ImageError`].
    fn settings(&self, image: &str) -> Result<RunSettings, ImageError>;
}

/// All that the release brings.
#[derive(Clone)]
pub struct Catalog {
    /// What it declares.
    pub declared: Declared,
    /// Its images.
    pub images: Arc<dyn Images>,
}

impl Catalog {
    /// The directory of a model or data set on this machine.
    ///
    /// # Errors
    /// [`ImageError`] when its image cannot be mounted, or does not hold it.
    pub fn place(&self, place: &Place) -> Result<PathBuf, ImageError> {
        let failed = |reason: String| ImageError::Mount { image: place.image.clone(), reason };
        let root = self.images.mounted(&place.image)?;
        let path = root.join(place.path.trim_start_matches('/'));
        let found = fs::metadata(&path).map_err(|error| failed(format!("{}: {error}", place.path)))?;
        if found.is_dir() { Ok(path) } else { Err(failed(format!("{} is no directory", place.path))) }
    }
}

/// Bytes of the files in a directory and below, symbolic links not followed. Bounded, as images come from outside.
///
/// # Errors
/// What the system said.
pub fn size_of(directory: &std::path::Path) -> io::Result<u64> {
    const MAX_ENTRIES: usize = 100_000;
    let (mut left, mut total, mut seen) = (vec![directory.to_owned()], 0_u64, 0_usize);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            seen = seen.saturating_add(1);
            if seen > MAX_ENTRIES {
                return Ok(total);
            }
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.is_file() {
                total = total.saturating_add(metadata.len());
            }
        }
    }
    Ok(total)
}
