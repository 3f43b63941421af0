//! Mounting an image: EROFS over the checked devices of its metadata and layers.

use crate::device_mapper::Mapped;
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Why an image is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It has no devices.
    #[error("the image has no metadata")]
    Empty,
    /// The kernel has no EROFS.
    #[error("opening the file system erofs: {0}")]
    NoErofs(io::Error),
    /// The file system refuses it.
    #[error("mounting the image: {error}{said}")]
    Refused {
        /// The system's answer.
        error: io::Error,
        /// What the file system said.
        said: String,
    },
    /// It cannot be put into its place.
    #[error("placing the image on {}: {error}", at.display())]
    Place {
        /// The place.
        at: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// Mounts an image read-only at `at`, a directory: its metadata first, then one device for each layer, in order. Device
/// nodes in it have no meaning.
///
/// # Errors
/// [`MountError`] with what the file system said.
pub fn mount(devices: &[Mapped], at: &Path) -> Result<(), MountError> {
    let (metadata, layers) = devices.split_first().ok_or(MountError::Empty)?;
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| MountError::NoErofs(error.into()))?;
    let explain = |error: rustix::io::Errno| MountError::Refused { error: error.into(), said: messages(&context) };
    fsconfig_set_string(context.as_fd(), "source", &metadata.node).map_err(explain)?;
    for layer in layers {
        fsconfig_set_string(context.as_fd(), "device", &layer.node).map_err(explain)?;
    }
    fsconfig_set_flag(context.as_fd(), "ro").map_err(explain)?;
    fsconfig_create(context.as_fd()).map_err(explain)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explain)?;
    move_mount(mount.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| MountError::Place { at: at.to_owned(), error: error.into() })
}

/// What the file system left to say about a failure; a text to append.
fn messages(context: &OwnedFd) -> String {
    let mut said = String::new();
    let mut buffer = [0; 512];
    while let Ok(len @ 1..) = rustix::io::read(context, &mut buffer) {
        said.push_str(": ");
        said.push_str(&String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_devices_is_none() {
        assert!(matches!(mount(&[], Path::new("/nowhere")), Err(MountError::Empty)));
    }
}
