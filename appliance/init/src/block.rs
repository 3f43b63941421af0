//! Block devices, as the kernel lists them in sysfs.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// A disk or a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    /// Name of the disk that a partition lies on. Comes first, so that whole disks sort before partitions.
    pub disk: Option<String>,
    /// Its own name (`sda1`).
    pub name: String,
    /// Its node (`/dev/sda1`).
    pub node: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// The kernel's number of the disk with its medium, where it counts them: what comes later under the same name has another.
    pub sequence: Option<u64>,
}

/// Devices that carry no medium of their own: memory, and what this program makes itself.
const SKIPPED: [&str; 6] = ["ram", "loop", "dm-", "zram", "md", "fd"];

/// Lists `sys/class/block`: whole disks first, then partitions. Devices without any bytes are left out.
///
/// # Errors
/// What the kernel answered when the list cannot be read.
pub fn list_from(root: &Path) -> io::Result<BTreeSet<BlockDevice>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.join("sys/class/block"))? {
        // A device may go while it is being looked at; then it is not there.
        if let Some(device) = entry.ok().and_then(|entry| device(root, &entry.path())) {
            found.insert(device);
        }
    }
    Ok(found)
}

fn device(root: &Path, link: &Path) -> Option<BlockDevice> {
    let name = link.file_name()?.to_str()?.to_owned();
    if SKIPPED.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let place = fs::canonicalize(link).ok()?;
    let sectors: u64 = fs::read_to_string(place.join("size")).ok()?.trim().parse().ok()?;
    let len = sectors.checked_mul(512).filter(|len| *len > 0)?;
    let (disk, whole) = match place.join("partition").exists() {
        true => (Some(place.parent()?.file_name()?.to_str()?.to_owned()), place.parent()?),
        false => (None, place.as_path()),
    };
    let sequence = fs::read_to_string(whole.join("diskseq")).ok().and_then(|number| number.trim().parse().ok());
    // The kernel writes `!` in sysfs for the `/` of a node's name (`cciss!c0d0`).
    let node = root.join("dev").join(name.replace('!', "/"));
    Some(BlockDevice { disk, name, node, len, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(devices: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("sys/class/block");
        fs::create_dir_all(&class).unwrap();
        for (place, sectors) in devices {
            let real = root.path().join("sys/devices").join(place);
            fs::create_dir_all(&real).unwrap();
            fs::write(real.join("size"), sectors).unwrap();
            let name = real.file_name().unwrap();
            if place.contains('/') {
                fs::write(real.join("partition"), "1").unwrap();
            }
            std::os::unix::fs::symlink(&real, class.join(name)).unwrap();
        }
        root
    }

    #[test]
    fn whole_disks_come_before_partitions() {
        let root = machine(&[("sdb", "8\n"), ("sda", "16\n"), ("sda/sda1", "8\n"), ("sda/sda2", "8\n")]);
        let list = list_from(root.path()).unwrap();
        let names: Vec<_> = list.iter().map(|device| (device.name.as_str(), device.disk.as_deref())).collect();
        assert_eq!(names, [("sda", None), ("sdb", None), ("sda1", Some("sda")), ("sda2", Some("sda"))]);
        assert_eq!(list.first().unwrap().len, 8192);
    }

    #[test]
    fn a_partition_has_the_number_of_its_disk() {
        let root = machine(&[("sda", "16\n"), ("sda/sda1", "8\n"), ("sdb", "16\n")]);
        fs::write(root.path().join("sys/devices/sda/diskseq"), "7\n").unwrap();
        let numbers: Vec<_> = list_from(root.path()).unwrap().into_iter().map(|device| device.sequence).collect();
        assert_eq!(numbers, [Some(7), None, Some(7)]);
    }

    #[test]
    fn memory_disks_and_empty_drives_are_left_out() {
        let root = machine(&[("ram0", "8\n"), ("loop0", "8\n"), ("dm-0", "8\n"), ("sr0", "0\n"), ("sdc", "junk\n")]);
        assert!(list_from(root.path()).unwrap().is_empty());
    }
}
