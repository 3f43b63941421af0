//! The OS image, mapped and mounted read-only at `/sysroot`.

use gap_mapping::{Mapping, MountError, Number, device_mapper::Mapped, erofs};
use std::path::{Path, PathBuf};

use crate::{Stop, release::Blob};

/// Where the OS image is mounted in the initramfs.
pub const SYSROOT: &str = "sysroot";

/// Maps the blobs of the OS image on `medium`.
///
/// # Errors
/// [`Stop`] when a blob does not lie on block boundaries or the kernel refuses a device.
pub fn map_image(root: &Path, medium: Number, blobs: &[Blob]) -> Result<Mapping, Stop> {
    use gap_mapping::MapError::{Control, Misplaced, Refused, Taken};
    gap_mapping::map(root, medium, blobs.iter().map(|blob| &blob.place)).map_err(|error| match error {
        Misplaced(_) => Stop::NotTrusted(error.to_string()),
        Control(_) | Refused { .. } | Taken(_) => Stop::Failed(error.to_string()),
    })
}

/// Mounts the OS image: its metadata first, then one device for each layer, in order. Returns the mount point.
///
/// # Errors
/// [`Stop`] with what the file system said.
pub fn mount_image(root: &Path, devices: &[Mapped]) -> Result<PathBuf, Stop> {
    let at = root.join(SYSROOT);
    erofs::mount(devices, &at).map_err(|error| match error {
        MountError::Empty => Stop::NotTrusted("the OS image has no metadata".into()),
        error => Stop::Failed(format!("the OS image: {error}")),
    })?;
    Ok(at)
}
