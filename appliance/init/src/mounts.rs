//! The file systems of the kernel itself, and mounting what came from outside.

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{MountFlags, mount},
};
use std::{ffi::CString, io, path::Path};

use crate::{Attempt, Stop, modules::Modules, story::Story};

/// A file system of the kernel and where it goes.
struct KernelMount {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: &'static str,
}

const SEALED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Device nodes are what `/dev` is for.
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const SCRATCH: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What the initramfs needs itself.
const INITRAMFS: [KernelMount; 4] = [
    KernelMount { kind: "proc", at: "proc", flags: SEALED, options: "" },
    KernelMount { kind: "sysfs", at: "sys", flags: SEALED, options: "" },
    KernelMount { kind: "devtmpfs", at: "dev", flags: DEVICES, options: "mode=0755" },
    KernelMount { kind: "tmpfs", at: "run", flags: SCRATCH, options: "mode=0755,size=16m" },
];

/// What the OS image finds mounted. Sizes are shares of the machine's memory.
const OS_IMAGE: [KernelMount; 9] = [
    KernelMount { kind: "proc", at: "proc", flags: SEALED, options: "" },
    KernelMount { kind: "sysfs", at: "sys", flags: SEALED, options: "" },
    KernelMount { kind: "cgroup2", at: "sys/fs/cgroup", flags: SEALED, options: "" },
    KernelMount { kind: "devtmpfs", at: "dev", flags: DEVICES, options: "mode=0755" },
    KernelMount { kind: "devpts", at: "dev/pts", flags: DEVICES, options: "mode=0620,gid=5,ptmxmode=0666" },
    KernelMount { kind: "tmpfs", at: "dev/shm", flags: SEALED, options: "mode=1777,size=50%" },
    KernelMount { kind: "tmpfs", at: "run", flags: SCRATCH, options: "mode=0755,size=20%" },
    KernelMount { kind: "tmpfs", at: "tmp", flags: SCRATCH, options: "mode=1777,size=50%" },
    KernelMount { kind: "tmpfs", at: "var", flags: SCRATCH, options: "mode=0755,size=50%" },
];

/// Directories that programs expect in an empty `/var`, and their modes.
const VAR: [(&str, u32); 5] = [("cache", 0o755), ("lib", 0o755), ("log", 0o755), ("spool", 0o755), ("tmp", 0o1777)];

/// Mounts what the initramfs needs: `/proc`, `/sys`, `/dev`, `/run`.
///
/// # Errors
/// [`Stop::System`] with the first mount that failed.
pub fn mount_for_initramfs(root: &Path) -> Result<(), Stop> {
    INITRAMFS.iter().try_for_each(|entry| mount_kernel(root, entry))
}

/// Mounts the firmware's variables, which a machine without UEFI does not have.
///
/// # Errors
/// [`Stop`] when the module for it is missing from the initramfs that lists it.
pub fn mount_firmware_variables(root: &Path, modules: &mut Modules, story: &Story) -> Result<(), Stop> {
    let at = root.join("sys/firmware/efi/efivars");
    if at.is_dir() {
        modules.serve("fs-efivarfs", story)?;
        // Without them Secure Boot counts as unsupported, which claims less than the truth and never more.
        let _ = mount("efivarfs", at, "efivarfs", SEALED | MountFlags::RDONLY, None);
    }
    Ok(())
}

/// Mounts what the OS image needs and lays out an empty `/var`.
///
/// # Errors
/// [`Stop`] with the first mount that failed, or the directory that the image lacks.
pub fn mount_for_os(sysroot: &Path) -> Result<(), Stop> {
    for entry in &OS_IMAGE {
        if entry.at.starts_with("dev/") {
            make_directory(&sysroot.join(entry.at), 0o755)?;
        }
        mount_kernel(sysroot, entry)?;
    }
    for (name, mode) in VAR {
        make_directory(&sysroot.join("var").join(name), mode)?;
    }
    std::os::unix::fs::symlink("/run", sysroot.join("var/run")).attempt(|| "linking /var/run".into())
}

/// Makes a directory with exactly this mode; one that is there is left as it is.
///
/// # Errors
/// [`Stop::System`] when the kernel refuses.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), Stop> {
    match rustix::fs::mkdirat(CWD, path, mode.into()) {
        // The mask of the process narrows the mode of a new directory.
        Ok(()) => rustix::fs::chmod(path, mode.into()).attempt(|| format!("setting the mode of {}", path.display())),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).attempt(|| format!("making the directory {}", path.display())),
    }
}

fn mount_kernel(root: &Path, entry: &KernelMount) -> Result<(), Stop> {
    let at = root.join(entry.at);
    let options = CString::new(entry.options).map_err(io::Error::from).attempt(|| "naming mount options".into())?;
    match mount(entry.kind, &at, entry.kind, entry.flags, options.as_c_str()) {
        // The kernel may have mounted /dev already.
        Err(Errno::BUSY) if entry.kind == "devtmpfs" => Ok(()),
        Err(Errno::NOENT) => {
            Err(Stop::Failed(format!("there is no directory /{} to mount {} on", entry.at, entry.kind)))
        }
        result => result.attempt(|| format!("mounting {} on {}", entry.kind, at.display())),
    }
}

/// A file system from outside, mounted so that nothing in it can act: read-only, no programs, no device nodes.
///
/// # Errors
/// [`Stop::System`] with what the kernel answered.
pub fn mount_foreign(device: &Path, kind: &str, at: &Path, modules: &mut Modules, story: &Story) -> Result<(), Stop> {
    modules.serve(&format!("fs-{kind}"), story)?;
    make_directory(at, 0o755)?;
    // A journal is not replayed: the medium is never written to.
    let options = match kind {
        "ext4" => c"noload",
        "xfs" => c"norecovery",
        _ => c"",
    };
    mount(device, at, kind, SEALED | MountFlags::RDONLY, options)
        .attempt(|| format!("mounting the {kind} on {}", device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_gets_its_mode_whatever_the_mask() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tmp");
        make_directory(&path, 0o1777).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        make_directory(&path, 0o755).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(make_directory(&root.path().join("a/b"), 0o755).is_err());
    }

    #[test]
    fn a_mount_comes_after_what_it_lies_on() {
        for list in [&INITRAMFS[..], &OS_IMAGE[..]] {
            for (index, entry) in list.iter().enumerate() {
                if let Some((parent, _)) = entry.at.split_once('/') {
                    assert!(list[..index].iter().any(|earlier| earlier.at == parent), "{}", entry.at);
                }
            }
        }
    }
}
