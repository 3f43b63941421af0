//! The OS image, mounted read-only at `/sysroot`.

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{Attempt, Stop, device_mapper::Mapped};

/// Where the OS image is mounted in the initramfs.
pub const SYSROOT: &str = "sysroot";

/// Mounts an EROFS image: its metadata first, then one device for each layer, in order. Returns the mount point.
///
/// # Errors
/// [`Stop`] with what the file system said.
pub fn mount_image(root: &Path, devices: &[Mapped]) -> Result<PathBuf, Stop> {
    let (metadata, layers) =
        devices.split_first().ok_or_else(|| Stop::NotTrusted("the OS image has no metadata".into()))?;
    let at = root.join(SYSROOT);
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).attempt(|| "opening the file system erofs".into())?;
    let explain = |error: rustix::io::Errno| {
        let said = messages(&context);
        Stop::Failed(format!("mounting the OS image: {error}{said}"))
    };
    fsconfig_set_string(context.as_fd(), "source", &metadata.node).map_err(explain)?;
    for layer in layers {
        fsconfig_set_string(context.as_fd(), "device", &layer.node).map_err(explain)?;
    }
    fsconfig_set_flag(context.as_fd(), "ro").map_err(explain)?;
    fsconfig_create(context.as_fd()).map_err(explain)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explain)?;
    move_mount(mount.as_fd(), "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .attempt(|| format!("placing the OS image on {}", at.display()))?;
    Ok(at)
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
