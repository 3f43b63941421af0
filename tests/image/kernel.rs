//! The kernel's own EROFS, and `fsck.erofs`, as judges.
//!
//! Needs root and loop devices; without them the tests say that they did nothing.

use crate::{
    entry::{Entries, Entry, assert_same, meant},
    layers::Image,
    sample,
};
use rustix::fs::{lgetxattr, llistxattr};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// An image on loop devices, mounted until dropped.
struct Mounted {
    folder: TempDir,
    loops: Vec<String>,
}

impl Mounted {
    /// `None`, with a message, where this machine does not let us.
    fn new(image: &Image) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: mounting needs root and loop devices");
            return None;
        }
        let mut mounted = Self { folder: write_files(image), loops: Vec::new() };
        for file in files(mounted.folder.path(), image.layers.len()) {
            let device = run(Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(file));
            mounted.loops.push(device.trim().to_owned());
        }
        let (blob, layers) = mounted.loops.split_first().unwrap();
        let devices: Vec<String> = layers.iter().map(|device| format!("device={device}")).collect();
        fs::create_dir(mounted.root()).unwrap();
        let options = format!("ro,{}", devices.join(","));
        run(Command::new("mount").args(["-t", "erofs", "-o", &options, blob]).arg(mounted.root()));
        Some(mounted)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).output();
        for device in &self.loops {
            let _ = Command::new("losetup").args(["--detach", device]).output();
        }
    }
}

fn write_files(image: &Image) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, data) in
        files(folder.path(), image.layers.len()).iter().zip([&image.blob].into_iter().chain(&image.layers))
    {
        fs::write(file, data).unwrap();
    }
    folder
}

/// The blob's file, then the layers'.
fn files(folder: &Path, layers: usize) -> Vec<PathBuf> {
    let layers = (0..layers).map(|number| folder.join(format!("layer{number}")));
    [folder.join("blob")].into_iter().chain(layers).collect()
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap() + &said
}

/// The tree below `root` as the kernel shows it.
pub fn seen(root: &Path) -> Entries {
    let mut entries = Entries::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let place = root.join(std::ffi::OsStr::from_bytes(&path));
        let meta = place.symlink_metadata().unwrap();
        let mut data = Vec::new();
        if meta.is_dir() {
            for child in fs::read_dir(&place).unwrap() {
                let name = child.unwrap().file_name();
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                waiting.push([&path, separator, name.as_bytes()].concat());
            }
        } else if meta.is_symlink() {
            data = fs::read_link(&place).unwrap().as_os_str().as_bytes().to_vec();
        } else if meta.is_file() {
            data = fs::read(&place).unwrap();
        }
        let device = meta.rdev();
        let entry = Entry {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: meta.mtime(),
            links: meta.nlink(),
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            xattrs: xattrs(&place).unwrap(),
            data,
            first_name: meta.ino().to_be_bytes().to_vec(),
        };
        entries.insert(path, entry);
    }
    let mut first = BTreeMap::new();
    for (path, entry) in &mut entries {
        entry.first_name = first.entry(entry.first_name.clone()).or_insert_with(|| path.clone()).clone();
    }
    entries
}

fn xattrs(place: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 65536];
    let len = llistxattr(place, &mut names)?;
    names.truncate(len);
    let mut found = BTreeMap::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let len = lgetxattr(place, name, &mut value)?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

#[test]
fn the_kernel_shows_the_tree_that_was_meant() {
    let image = Image::new(&sample::trees());
    let Some(mounted) = Mounted::new(&image) else { return };
    assert_same("mounted", &seen(&mounted.root()), &meant(&image.tree, &image.layers));
}

#[test]
fn fsck_extracts_the_tree_that_was_meant() {
    if Command::new("fsck.erofs").arg("--help").output().is_err() {
        eprintln!("skipped: fsck.erofs is not installed");
        return;
    }
    let image = Image::new(&sample::trees());
    let folder = write_files(&image);
    let files = files(folder.path(), image.layers.len());
    let devices = files.iter().skip(1).map(|file| format!("--device={}", file.display()));
    let extracted = folder.path().join("extracted");
    run(Command::new("fsck.erofs").arg(format!("--extract={}", extracted.display())).args(devices).arg(&files[0]));
    assert_same("extracted", &extractable(seen(&extracted)), &extractable(meant(&image.tree, &image.layers)));
}

/// What every version of `fsck.erofs` extracts: older ones leave out hard links and extended attributes, and
/// change the owner after the mode, which clears the set-id bits.
fn extractable(entries: Entries) -> Entries {
    let plain = |entry: Entry| Entry {
        mode: entry.mode & !0o6000,
        links: 0,
        first_name: Vec::new(),
        xattrs: BTreeMap::new(),
        ..entry
    };
    entries.into_iter().map(|(path, entry)| (path, plain(entry))).collect()
}
