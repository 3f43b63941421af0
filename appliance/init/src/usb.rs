//! What is on its way on the USB: a stick is known by its interface a good second before it is a disk.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the bus may be silent before nothing more is expected of it. A port that a stick sits in is debounced for
/// 100 ms (USB 2.0, 7.1.7.3) and reset for 50 ms before the stick is asked what it is.
const SETTLED: Duration = Duration::from_millis(400);
/// How long a stick may take to become a disk. The kernel itself waits for one second.
const STICK: Duration = Duration::from_secs(6);
/// Interfaces of mass storage, as `bInterfaceClass` shows them (USB, class codes).
const MASS_STORAGE: &str = "08";

/// Looks at the bus again and again.
#[derive(Debug)]
pub struct Bus {
    root: PathBuf,
    known: BTreeSet<String>,
    /// When something last came to it, or went.
    changed: Duration,
}

impl Bus {
    /// The bus as it is found first at `now`; its drivers have been there since `driven`.
    pub fn new(root: &Path, driven: Duration) -> Self {
        Self { root: root.into(), known: names(root), changed: driven }
    }

    /// Whether the machine has any.
    pub fn is_there(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether a disk is still to be expected at `now`: something came a moment ago, or there is a stick that is no disk
    /// yet.
    pub fn may_bring_a_disk(&mut self, now: Duration) -> bool {
        let names = names(&self.root);
        if names != self.known {
            self.known = names;
            self.changed = now;
        }
        let silent = now.saturating_sub(self.changed);
        self.is_there() && (silent < SETTLED || silent < STICK && self.has_stick_without_disk())
    }

    fn has_stick_without_disk(&self) -> bool {
        let disks: Vec<PathBuf> = entries(&self.root.join("sys/class/block")).collect();
        let disks: Vec<PathBuf> = disks.iter().filter_map(|link| fs::canonicalize(link).ok()).collect();
        let interfaces = self.known.iter().filter_map(|name| fs::canonicalize(devices(&self.root).join(name)).ok());
        interfaces
            .filter(|interface| {
                let class = fs::read_to_string(interface.join("bInterfaceClass")).unwrap_or_default();
                class.trim_end() == MASS_STORAGE
            })
            .any(|interface| !disks.iter().any(|disk| disk.starts_with(&interface)))
    }
}

fn devices(root: &Path) -> PathBuf {
    root.join("sys/bus/usb/devices")
}

fn names(root: &Path) -> BTreeSet<String> {
    entries(&devices(root)).filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A device or interface `name` on the bus, of this class.
    pub(crate) fn plug(root: &Path, name: &str, class: &str) {
        let real = root.join("sys/devices/usb").join(name);
        fs::create_dir_all(&real).unwrap();
        fs::write(real.join("bInterfaceClass"), format!("{class}\n")).unwrap();
        fs::create_dir_all(devices(root)).unwrap();
        symlink(&real, devices(root).join(name)).unwrap();
    }

    fn disk(root: &Path, interface: &str) {
        let real = root.join("sys/devices/usb").join(interface).join("host0/target0/0:0:0:0/block/sda");
        fs::create_dir_all(&real).unwrap();
        fs::create_dir_all(root.join("sys/class/block")).unwrap();
        symlink(&real, root.join("sys/class/block/sda")).unwrap();
    }

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_silent_bus_brings_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert!(!Bus::new(root.path(), at(0)).may_bring_a_disk(at(0)));
        plug(root.path(), "usb1", "09");
        let mut bus = Bus::new(root.path(), at(1000));
        assert!(bus.may_bring_a_disk(at(1100)));
        assert!(!bus.may_bring_a_disk(at(1400)));
        // A keyboard makes it wait for a moment only.
        plug(root.path(), "1-1:1.0", "03");
        assert!(bus.may_bring_a_disk(at(1500)));
        assert!(!bus.may_bring_a_disk(at(1900)));
    }

    #[test]
    fn a_stick_is_waited_for_until_it_is_a_disk_or_takes_too_long() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), "usb1", "09");
        plug(root.path(), "1-2:1.0", "08");
        let mut bus = Bus::new(root.path(), at(1000));
        assert!(bus.may_bring_a_disk(at(4000)));
        assert!(!bus.may_bring_a_disk(at(7000)));
        disk(root.path(), "1-2:1.0");
        assert!(!bus.may_bring_a_disk(at(4000)));
    }
}
