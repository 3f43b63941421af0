//! What is mounted inside a sandbox.

use super::{Bind, Scratch};
use rustix::{
    fs::{AtFlags, CWD, Mode, StatVfsMountFlags, Timespec, Timestamps, symlink, utimensat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
    process::{chdir, pivot_root},
};
use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// Host devices that appear in `/dev`.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Who may do what with a root directory.
const MODE: Mode = Mode::from_raw_mode(0o755);
/// Where the root lies before it becomes the root.
pub(super) const STAGE: &str = "/tmp";

/// Directories that were made to mount on, and are no part of the tree.
pub(super) type Made = Vec<PathBuf>;

/// What in `/proc` is the whole machine's: where gapimage runs as root, root inside is the same user to the kernel.
const OF_THE_KERNEL: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// A step of mounting and how it failed.
fn explain<T>(what: impl std::fmt::Display, result: rustix::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {what}: {error}"))
}

/// Host paths, taken hold of before the host's tree disappears: each with whether it is a directory.
pub(super) struct HeldBinds(Vec<(OwnedFd, bool, Bind)>);

/// Takes hold of host paths.
pub(super) fn hold(binds: &[Bind]) -> Result<HeldBinds, String> {
    let held = binds.iter().map(|bind| {
        let what = format!("take {} into the sandbox", bind.host.display());
        let tree = open_tree(CWD, &bind.host, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
        Ok((explain(what, tree)?, bind.host.is_dir(), bind.clone()))
    });
    held.collect::<Result<_, String>>().map(HeldBinds)
}

/// Where in a scratch directory the root lies that is written to, and what it consists of.
const OVERLAY: &str = "root";
const LOWER: &str = "lower";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// The file for what comes back, as it is found beside them: its own place may be covered by then.
const OUTPUT: &str = "output";

/// Mounts a root that another process serves, read-only, and returns the device that it is served over. With a scratch
/// directory, and the file for what comes back, it lies in there, to be laid under what is written ([`overlay`]).
pub(super) fn view(over: Option<(&Scratch, &Path)>) -> Result<OwnedFd, String> {
    let place = match over {
        None => {
            separate()?;
            PathBuf::from(STAGE)
        }
        Some((scratch, output)) => {
            let what = "take the file for what comes back";
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let output = explain(what, open_tree(CWD, output, flags))?;
            let stage = stage(scratch)?;
            for name in [OVERLAY, LOWER, UPPER, WORK] {
                let place = stage.join(name);
                explain_io("make", &place, fs::create_dir(&place))?;
                explain("open the scratch directory", rustix::fs::chmodat(CWD, &place, MODE, AtFlags::empty()))?;
            }
            let place = self::output();
            explain_io("make", &place, fs::write(&place, b""))?;
            explain(what, attach(&output, &place))?;
            stage.join(LOWER)
        }
    };
    let path = Path::new("/dev/fuse");
    let device = explain_io("open", path, fs::OpenOptions::new().read(true).write(true).open(path))?;
    let number = device.as_raw_fd().to_string();
    let options = [("fd", number.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")];
    let flags = ["allow_other", "default_permissions"];
    let made = || {
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        options.iter().try_for_each(|(name, value)| fsconfig_set_string(&context, *name, *value))?;
        flags.iter().try_for_each(|name| fsconfig_set_flag(&context, *name))?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    let root = explain("make a fuse file system", made())?;
    explain("mount the root", attach(&root, &place))?;
    Ok(device.into())
}

/// Where [`view`] put the file for what comes back.
pub(super) fn output() -> PathBuf {
    Path::new(STAGE).join(OUTPUT)
}

/// Lays what will be written over the root that [`view`] mounted, and returns where both are one.
pub(super) fn overlay() -> Result<PathBuf, String> {
    let stage = Path::new(STAGE);
    let made = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (option, name) in [("lowerdir", LOWER), ("upperdir", UPPER), ("workdir", WORK)] {
            fsconfig_set_string(&context, option, stage.join(name))?;
        }
        // Others are not open to a user name space.
        fsconfig_set_flag(&context, "userxattr")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let root = explain("make an overlay file system", made())?;
    let place = stage.join(OVERLAY);
    explain("mount the root", attach(&root, &place))?;
    Ok(place)
}

fn separate() -> Result<(), String> {
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    explain("separate the mounts", mount_change("/", all))
}

/// Mounts the (still empty) root and returns where it is.
pub(super) fn stage(scratch: &Scratch) -> Result<PathBuf, String> {
    separate()?;
    let stage = PathBuf::from(STAGE);
    match scratch {
        Scratch::Memory(bytes) => {
            let root = file_system("tmpfs", &[("size", &bytes.to_string()), ("mode", "755"), ("nr_inodes", "0")])?;
            explain("mount the root", attach(&root, &stage))?;
        }
        Scratch::Directory(directory) => {
            explain("mount the scratch directory", mount_bind(directory, &stage))?;
        }
    }
    Ok(stage)
}

/// Makes `stage` the root, with everything mounted that programs need.
pub(super) fn enter(stage: &Path, binds: HeldBinds) -> Result<Made, String> {
    let mut made = Made::new();
    for directory in ["proc", "dev", "tmp", "run"] {
        make_directory(stage, Path::new(directory), &mut made)?;
    }
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let proc = file_system_with("proc", &[], plain | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    let place = stage.join("proc");
    explain("mount /proc", attach(&proc, &place))?;
    // In a name space of its own a program would have all rights again.
    let limit = place.join("sys/user/max_user_namespaces");
    explain_io("write", &limit, fs::write(&limit, "0"))?;
    for name in OF_THE_KERNEL {
        let place = place.join(name);
        if place.exists() {
            let what = format!("make /proc/{name} read-only");
            explain(&what, mount_bind(&place, &place))?;
            explain(&what, read_only(&place))?;
        }
    }
    for (name, mode) in [("tmp", "1777"), ("run", "755")] {
        let memory = file_system_with("tmpfs", &[("mode", mode)], plain)?;
        explain(format!("mount /{name}"), attach(&memory, &stage.join(name)))?;
    }
    devices(&stage.join("dev"))?;
    for (tree, is_directory, bind) in binds.0 {
        let inside = bind.inside.strip_prefix("/").unwrap_or(&bind.inside);
        let place = stage.join(inside);
        if is_directory {
            make_directory(stage, inside, &mut made)?;
        } else {
            make_directory(stage, inside.parent().unwrap_or(Path::new("")), &mut made)?;
            if !place.exists() {
                keeping_time(&place, || explain_io("make", &place, fs::write(&place, b"")))?;
                made.push(Path::new("/").join(inside));
            }
        }
        let what = format!("show {} in the sandbox", bind.host.display());
        explain(&what, attach(&tree, &place))?;
        explain(&what, read_only(&place))?;
    }
    explain("enter the root", chdir(stage))?;
    explain("switch to the root", pivot_root(".", "."))?;
    explain("leave the host's tree", unmount(".", UnmountFlags::DETACH))?;
    explain("enter the root", chdir("/"))?;
    explain("set the host name", rustix::system::sethostname(b"localhost"))?;
    Ok(made)
}

/// Takes all of it away again, so that the tree can be read.
pub(super) fn leave(binds: &[Bind], made: &Made) -> Result<(), String> {
    let inside = binds.iter().rev().map(|bind| Path::new("/").join(&bind.inside));
    let own = ["/dev/pts", "/dev", "/run", "/tmp", "/proc"].map(PathBuf::from);
    for place in inside.chain(own) {
        explain(format!("unmount {}", place.display()), unmount(&place, UnmountFlags::DETACH))?;
    }
    for place in made.iter().rev() {
        keeping_time(place, || {
            // A program may have put something there; then it stays.
            let _ = fs::remove_dir(place).or_else(|_| fs::remove_file(place));
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes the root read-only; what is mounted below it stays as it is.
pub(super) fn close_root() -> Result<(), String> {
    explain("make the root read-only", read_only(Path::new("/")))
}

/// Takes that back.
pub(super) fn reopen_root() -> Result<(), String> {
    explain("make the root writable again", mount_remount("/", MountFlags::BIND, ""))
}

fn file_system(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd, String> {
    file_system_with(kind, options, MountAttrFlags::empty())
}

fn file_system_with(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, String> {
    let made = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in options {
            fsconfig_set_string(&context, *name, *value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let hint = if kind == "proc" { "; inside a container, run that one with an unmasked /proc" } else { "" };
    made().map_err(|error| format!("cannot make a {kind} file system: {error}{hint}"))
}

fn attach(tree: &OwnedFd, place: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes a mount read-only; the flags that it has from the host are locked and must be repeated.
fn read_only(place: &Path) -> rustix::io::Result<()> {
    let now = rustix::fs::statvfs(place)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| now.contains(*flag)).map(|(_, flag)| flag);
    let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, |all, flag| all | flag);
    mount_remount(place, flags, "")
}

fn devices(dev: &Path) -> Result<(), String> {
    let held = DEVICES.map(|name| {
        let host = Path::new("/dev").join(name);
        let tree = open_tree(CWD, &host, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
        explain(format!("take {} into the sandbox", host.display()), tree).map(|tree| (name, tree))
    });
    let memory = file_system("tmpfs", &[("mode", "755")])?;
    explain("mount /dev", attach(&memory, dev))?;
    for device in held {
        let (name, tree) = device?;
        let place = dev.join(name);
        explain_io("make", &place, fs::write(&place, b""))?;
        explain(format!("show /dev/{name}"), attach(&tree, &place))?;
    }
    let pts = dev.join("pts");
    explain_io("make", &pts, fs::create_dir(&pts))?;
    let terminals = file_system("devpts", &[("ptmxmode", "0666"), ("mode", "620"), ("gid", "5")])?;
    explain("mount /dev/pts", attach(&terminals, &pts))?;
    let shm = dev.join("shm");
    explain_io("make", &shm, fs::create_dir(&shm))?;
    explain("open /dev/shm", rustix::fs::chmodat(CWD, &shm, Mode::from_raw_mode(0o1777), AtFlags::empty()))?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        explain(format!("link /dev/{name}"), symlink(target, dev.join(name)))?;
    }
    Ok(())
}

/// Makes a directory and those above it below `stage`, never through a link.
fn make_directory(stage: &Path, inside: &Path, made: &mut Made) -> Result<(), String> {
    let mut place = stage.to_owned();
    let mut name = PathBuf::from("/");
    for component in inside.components() {
        place.push(component);
        name.push(component);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(format!("cannot mount on {}: it is not a directory", name.display())),
            Err(_) => {
                keeping_time(&place, || explain_io("make", &place, fs::create_dir(&place)))?;
                made.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Makes or removes `place` without a trace in the time of the directory that holds it.
fn keeping_time<T>(place: &Path, change: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    let before = explain_io("read", parent, fs::metadata(parent))?;
    let result = change()?;
    let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    explain(format!("restore the time of {}", parent.display()), utimensat(CWD, parent, &times, AtFlags::empty()))?;
    Ok(result)
}

fn explain_io<T>(what: &str, place: &Path, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {what} {}: {error}", place.display()))
}
