//! When no more disks are to be expected.
//!
//! A kernel does not say that it has found all disks. What it does say is when the last one came, and PID 1 says when every
//! device that it found has its driver. A controller of many disks goes on looking for them after its driver was loaded.

use super::Disk;
use crate::root::Root;
use gap_handover::boot_report::DRIVERS_PATH;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Where the kernel lists what may have disks behind it, and most that are looked at.
const HOSTS: (&str, usize) = ("/sys/class/scsi_host", 4096);
/// Beginnings of the names of drivers whose disks are there as soon as they themselves are, or a second later.
const QUICK: [&str; 9] =
    ["ahci", "ata_", "pata_", "sata_", "storvsc", "uas", "usb-storage", "virtio_scsi", "vmw_pvscsi"];

/// How long is waited, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a disk that the site names.
    pub named: Duration,
    /// Since the last disk came or changed, before an empty one is taken for a new data volume, or none.
    pub settled: Duration,
    /// The same on a machine with a controller that takes its time.
    pub slow: Duration,
    /// For the drivers that PID 1 loads: some controllers start for a minute.
    pub drivers: Duration,
    /// Between two looks.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            named: Duration::from_secs(30),
            settled: Duration::from_secs(3),
            slow: Duration::from_secs(15),
            drivers: Duration::from_secs(120),
            look: Duration::from_millis(200),
        }
    }
}

/// Disks as they come.
#[derive(Debug)]
pub(super) struct Arrival {
    began: Instant,
    changed: Instant,
    known: Option<BTreeSet<Disk>>,
    has_just_changed: bool,
}

impl Arrival {
    /// Begins to watch.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, changed: now, known: None, has_just_changed: false }
    }

    /// Takes note of the disks that are there, and says whether no other is to be expected.
    pub fn is_over(&mut self, root: &Root, disks: &BTreeSet<Disk>, is_named: bool, patience: &Patience) -> bool {
        let now = Instant::now();
        self.has_just_changed = self.known.as_ref() != Some(disks);
        if self.has_just_changed {
            self.changed = now;
            self.known = Some(disks.clone());
        }
        let waited = now.duration_since(self.began);
        if waited >= patience.drivers {
            return true;
        }
        let quiet = now.duration_since(self.changed);
        let is_over = match (is_named, has_slow_hosts(root)) {
            (true, _) => waited >= patience.named,
            (false, true) => quiet >= patience.slow,
            (false, false) => quiet >= patience.settled,
        };
        is_over && root.at(DRIVERS_PATH).exists()
    }

    /// Whether the last look found others than the one before.
    pub const fn has_just_changed(&self) -> bool {
        self.has_just_changed
    }
}

/// Whether there is a controller that may take seconds to find its disks: RAID, SAS, Fibre Channel and the like.
fn has_slow_hosts(root: &Root) -> bool {
    let (hosts, most) = HOSTS;
    let drivers = root.names(hosts, most).into_iter().filter_map(|host| root.line(format!("{hosts}/{host}/proc_name")));
    drivers.into_iter().any(|driver| !QUICK.iter().any(|quick| driver.starts_with(quick)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::{fs, thread};

    /// What PID 1 leaves.
    pub fn all_drivers_are_loaded(root: &Root) {
        fs::create_dir_all(root.at("/run/gap")).unwrap();
        fs::write(root.at(DRIVERS_PATH), "").unwrap();
    }

    const NOW: Duration = Duration::ZERO;
    const NEVER: Duration = Duration::from_secs(3600);

    fn machine() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        (directory, root)
    }

    fn is_over(root: &Root, patience: Patience) -> bool {
        Arrival::begin().is_over(root, &BTreeSet::new(), false, &patience)
    }

    #[test]
    fn disks_may_come_until_every_device_has_its_driver() {
        let (_directory, root) = machine();
        let patience = Patience { settled: NOW, ..Patience::default() };
        assert!(!is_over(&root, patience));
        assert!(is_over(&root, Patience { drivers: NOW, ..patience }), "but not for ever");
        all_drivers_are_loaded(&root);
        assert!(is_over(&root, patience));
    }

    #[test]
    fn a_controller_of_many_disks_is_given_more_time() {
        let (_directory, root) = machine();
        all_drivers_are_loaded(&root);
        let patience = Patience { settled: NOW, slow: NEVER, ..Patience::default() };
        for (host, driver, expected) in
            [("host0", "ahci", true), ("host1", "usb-storage", true), ("host2", "megaraid_sas", false)]
        {
            let place = root.at(HOSTS.0).join(host);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("proc_name"), format!("{driver}\n")).unwrap();
            assert_eq!(is_over(&root, patience), expected, "{driver}");
        }
    }

    #[test]
    fn each_disk_that_comes_begins_the_wait_anew() {
        let (_directory, root) = machine();
        all_drivers_are_loaded(&root);
        let patience = Patience { settled: Duration::from_millis(200), ..Patience::default() };
        let mut arrival = Arrival::begin();
        let disk = |name: &str| Disk {
            name: name.into(),
            len: 1,
            serials: BTreeSet::new(),
            is_read_only: false,
            has_partitions: false,
        };
        let mut disks = BTreeSet::new();
        for name in ["sda", "sdb", "sdc"] {
            disks.insert(disk(name));
            assert!(!arrival.is_over(&root, &disks, false, &patience));
            assert!(arrival.has_just_changed());
            thread::sleep(patience.settled);
        }
        assert!(arrival.is_over(&root, &disks, false, &patience));
        assert!(!arrival.has_just_changed());
    }
}
