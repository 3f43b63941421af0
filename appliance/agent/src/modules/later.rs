//! The last modules: what media may need that are plugged in later. After them the kernel takes no more
//! (`/proc/sys/kernel/modules_disabled`, sysctl/kernel.rst), so that whoever breaks out of a job, or into the agent, has one
//! way less into the kernel.

use super::{Modules, insert, module_name};
use crate::root::Root;
use std::{collections::BTreeSet, fs, io, path::PathBuf};

/// The switch, which only goes one way.
const SWITCH: &str = "/proc/sys/kernel/modules_disabled";
/// Sticks and disks on USB and what a kernel makes a disk of, then file systems and what they write names with.
const LATER: [&str; 13] = [
    "usb_storage",
    "uas",
    "sd_mod",
    "loop",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "vfat",
    "exfat",
    "ext4",
    "xfs",
    "isofs",
];

/// What is to be done for later media.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Module files, those first that others need.
    files: Vec<PathBuf>,
    /// Modules that the image does not have.
    pub missing: Vec<&'static str>,
}

impl Modules {
    /// What later media may need, by the indexes of the image in `root`. What is built into the kernel needs nothing.
    pub fn plan_for_later(&self, root: &Root) -> Plan {
        let builtin = root.read(format!("{}/modules.builtin", self.directory), super::MAX_INDEX).unwrap_or_default();
        let builtin: BTreeSet<String> = super::text(builtin).lines().filter_map(module_name).collect();
        let mut plan = Plan::default();
        let mut planned = BTreeSet::new();
        for name in LATER.into_iter().filter(|name| !builtin.contains(*name)) {
            match self.entry(name) {
                Some(_) => self.plan(root, name, &mut planned, &mut plan.files),
                None => plan.missing.push(name),
            }
        }
        plan
    }

    fn plan(&self, root: &Root, name: &str, planned: &mut BTreeSet<String>, files: &mut Vec<PathBuf>) {
        if !planned.insert(name.to_owned()) {
            return;
        }
        let Some(entry) = self.entry(name) else { return };
        for needed in &entry.needs {
            self.plan(root, needed, planned, files);
        }
        files.push(root.at(format!("{}/{}", self.directory, entry.path)));
    }
}

impl Plan {
    /// Hands the modules to the kernel. Returns what it refused, a sentence each.
    pub fn load(&self) -> Vec<String> {
        let refused = |file: &PathBuf| Some(format!("{}: {}", file.display(), insert(file).err()?));
        self.files.iter().filter_map(refused).collect()
    }
}

/// Has the kernel take no more modules, until the machine is started again.
///
/// # Errors
/// What the kernel answered.
pub fn lock(root: &Root) -> io::Result<()> {
    fs::write(root.at(SWITCH), "1\n")
}

/// Whether the kernel takes no more modules.
pub fn are_locked(root: &Root) -> bool {
    root.line(SWITCH).as_deref() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's tree for these, from `modules.dep` and `modules.builtin` of its kernel 6.12 for amd64.
    const DEPENDENCIES: &str = "kernel/drivers/usb/storage/usb-storage.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz \
        kernel/drivers/usb/core/usbcore.ko.xz kernel/drivers/scsi/scsi_common.ko.xz kernel/drivers/usb/common/usb-common.ko.xz\n\
        kernel/drivers/usb/storage/uas.ko.xz: kernel/drivers/usb/storage/usb-storage.ko.xz kernel/drivers/scsi/scsi_mod.ko.xz\n\
        kernel/drivers/scsi/sd_mod.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz\n\
        kernel/drivers/scsi/scsi_mod.ko.xz: kernel/drivers/scsi/scsi_common.ko.xz\n\
        kernel/drivers/scsi/scsi_common.ko.xz:\n\
        kernel/drivers/usb/core/usbcore.ko.xz: kernel/drivers/usb/common/usb-common.ko.xz\n\
        kernel/drivers/usb/common/usb-common.ko.xz:\n\
        kernel/drivers/block/loop.ko.xz:\n\
        kernel/fs/nls/nls_ascii.ko.xz:\n\
        kernel/fs/nls/nls_cp437.ko.xz:\n\
        kernel/fs/fat/fat.ko.xz:\n\
        kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz\n\
        kernel/fs/exfat/exfat.ko.xz:\n\
        kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n\
        kernel/fs/jbd2/jbd2.ko.xz:\n\
        kernel/fs/mbcache.ko.xz:\n\
        kernel/fs/isofs/isofs.ko.xz:\n";

    fn tree(builtin: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let modules = root.at("/usr/lib/modules/6.12");
        for (name, text) in [("alias", ""), ("dep", DEPENDENCIES), ("builtin", builtin)] {
            fs::create_dir_all(&modules).unwrap();
            fs::write(modules.join(format!("modules.{name}")), text).unwrap();
        }
        (directory, root)
    }

    #[test]
    fn sticks_and_their_file_systems_are_loaded_what_they_need_first_and_each_once() {
        let (_directory, root) = tree("kernel/fs/nls/nls_utf8.ko\n");
        let plan = Modules::read(&root, "6.12").unwrap().plan_for_later(&root);
        assert_eq!(plan.missing, ["nls_iso8859_1", "xfs"], "what is built in is not missing");
        let names: Vec<String> =
            plan.files.iter().map(|file| module_name(&file.file_name().unwrap().to_string_lossy()).unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        let at =
            |name: &str| names.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
        for (first, then) in [
            ("scsi_common", "scsi_mod"),
            ("scsi_mod", "usb_storage"),
            ("usbcore", "usb_storage"),
            ("usb_storage", "uas"),
            ("fat", "vfat"),
            ("jbd2", "ext4"),
            ("mbcache", "ext4"),
        ] {
            assert!(at(first) < at(then), "{first} before {then}: {names:?}");
        }
        assert!(plan.files.iter().all(|file| file.starts_with(root.at("/usr/lib/modules/6.12/kernel"))));
    }

    #[test]
    fn what_the_kernel_refuses_is_told_and_the_others_are_tried_all_the_same() {
        let (_directory, root) = tree("");
        let plan = Modules::read(&root, "6.12").unwrap().plan_for_later(&root);
        assert_eq!(plan.load().len(), plan.files.len(), "none of the files is there");
    }

    #[test]
    fn the_switch_is_thrown_and_seen() {
        let (_directory, root) = tree("");
        assert!(!are_locked(&root));
        fs::create_dir_all(root.at("/proc/sys/kernel")).unwrap();
        fs::write(root.at(SWITCH), "0\n").unwrap();
        assert!(!are_locked(&root));
        lock(&root).unwrap();
        assert!(are_locked(&root));
    }
}
