//! What there is to read: the blobs of the image that runs, which PID 1 mapped, then those of every other image of the
//! release, which are mapped when their turn comes.

use super::DirectFile;
use crate::{console, recheck::Verified, root::Root};
use gap_format::{
    Digest, ReadAt,
    release::{Mount, MountSet},
};
use gap_handover::boot_report;
use gap_mapping::Number;
use std::{collections::BTreeSet, io};

/// A blob of the release, and the device that checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The image that holds it; the first one, where there are more.
    pub image: String,
    /// `metadata`, or its title.
    pub name: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Root hash that every read is checked against.
    pub verity_root: Digest,
    /// Where it is read.
    pub source: Source,
}

/// Where a layer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// At the device that PID 1 made (`/dev/dm-3`).
    Device(String),
    /// At a device that is made over this place of the medium.
    Medium {
        /// The medium.
        device: Number,
        /// The place.
        mount: Mount,
    },
}

/// The layers of the image that runs.
pub fn of_system(report: &boot_report::BootReport, image: &str) -> Vec<Layer> {
    let layer = |layer: &boot_report::Layer| Layer {
        image: image.to_owned(),
        name: layer.name.clone(),
        digest: layer.digest,
        size: layer.size,
        verity_root: layer.verity_root,
        source: Source::Device(layer.device.clone()),
    };
    report.layers.iter().map(layer).collect()
}

/// The layers of all other images of the release, each blob once. What cannot be listed is told on the console.
pub fn of_others(verified: &Verified, known: &[Layer]) -> Vec<Layer> {
    let mut seen: BTreeSet<Digest> = known.iter().map(|layer| layer.digest).collect();
    let device = match verified.device() {
        Ok(device) => device,
        Err(error) => {
            console::say(format_args!("the images of the release are not read through: {error}"));
            return Vec::new();
        }
    };
    let mut layers = Vec::new();
    for set in verified.mount_sets() {
        match set {
            Ok(set) => {
                layers.extend(of_image(verified, device, &set).into_iter().filter(|new| seen.insert(new.digest)))
            }
            Err(error) => console::say(format_args!("an image is not read through: {error}")),
        }
    }
    layers
}

fn of_image(verified: &Verified, device: Number, set: &MountSet) -> Vec<Layer> {
    let image = verified.name_of(&set.image).unwrap_or_else(|| set.image.to_string());
    let layer = |(name, mount): (String, &Mount)| Layer {
        image: image.clone(),
        name,
        digest: mount.digest,
        size: mount.size,
        verity_root: mount.root,
        source: Source::Medium { device, mount: mount.clone() },
    };
    // Titles are for people; an image without any is as good.
    set.named(verified.manifest(&set.image).ok().as_ref()).map(layer).collect()
}

/// Opens the device of a layer; `root` stands for `/`.
///
/// # Errors
/// What the system said.
pub fn open(root: &Root, layer: &Layer) -> io::Result<Box<dyn ReadAt>> {
    let node = match &layer.source {
        Source::Device(device) => root.at(device),
        Source::Medium { device, mount } => {
            // It stays mapped, for the first job that wants it: what is mapped once serves every image.
            let mapping = gap_mapping::map(&root.at("/"), *device, [mount]).map_err(io::Error::other)?;
            let mapped = mapping.devices.first().ok_or(io::ErrorKind::NotFound)?;
            mapped.node.clone()
        }
    };
    Ok(Box::new(DirectFile::open(&node)?))
}
