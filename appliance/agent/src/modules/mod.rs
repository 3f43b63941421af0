//! Kernel modules for the devices that are plugged in, found by `modules.alias` and `modules.dep` (the text files that
//! `depmod` makes, depmod(8)).
//!
//! Only drivers that the network needs are loaded, the data volume's file system, and at last what later media may need
//! ([`later`]). Module files come from the verified image, so their content is
//! trusted; compressed ones are handed to the kernel as they are (`CONFIG_MODULE_DECOMPRESS`).

pub mod later;

use crate::{console, root::Root};
use rustix::{io::Errno, system::finit_module};
use std::{collections::BTreeSet, fs::File, io, path::Path};

/// Longest index file read, in bytes. Debian's `modules.alias` has 1.3 MB.
const MAX_INDEX: u64 = 32 << 20;
/// Most devices of one bus whose drivers are looked up.
const MAX_DEVICES: usize = 4096;
/// How often new devices are looked for that a loaded driver brought along.
const MAX_ROUNDS: usize = 4;
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses (finit_module(2)).
const COMPRESSED_FILE: i32 = 4;
/// Where drivers lie that a wired network interface may need: its own, and those of buses that it may sit on.
const WANTED: [&str; 9] = [
    "kernel/drivers/hv/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/hyperv/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/virtio_net",
    "kernel/drivers/net/vmxnet3/",
    "kernel/drivers/net/xen-netfront",
    "kernel/drivers/usb/host/",
    "kernel/drivers/virtio/",
];

/// Why no module can be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// An index of the image is not there.
    #[error("reading {path}: {source}; the image needs the indexes that depmod makes")]
    Index {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The indexes of one kernel's modules. They have some ten thousand lines, of which a boot needs a few, so that only
/// those of wanted drivers are taken apart.
#[derive(Debug)]
pub struct Modules {
    directory: String,
    /// Pattern and module of each alias of a wanted driver.
    aliases: Vec<(String, String)>,
    /// `modules.dep` and `modules.softdep`, as they are.
    dependencies: String,
    soft_dependencies: String,
}

/// One module file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: String,
    needs: Vec<String>,
}

impl Modules {
    /// Reads the indexes of the modules for this kernel release.
    ///
    /// # Errors
    /// [`ModulesError`] when `modules.alias` or `modules.dep` cannot be read.
    pub fn read(root: &Root, kernel_release: &str) -> Result<Self, ModulesError> {
        let directory = format!("/usr/lib/modules/{kernel_release}");
        let index = |name: &str| {
            let path = format!("{directory}/{name}");
            match root.read(&path, MAX_INDEX) {
                Ok(bytes) => Ok(text(bytes)),
                Err(source) => Err(ModulesError::Index { path, source }),
            }
        };
        // Only some drivers have soft dependencies, and an image may do without the index.
        let soft_dependencies = index("modules.softdep").unwrap_or_default();
        Ok(Self::parse(directory.clone(), &index("modules.alias")?, index("modules.dep")?, soft_dependencies))
    }

    fn parse(directory: String, aliases: &str, dependencies: String, soft_dependencies: String) -> Self {
        let aliases = wanted_aliases(aliases, &wanted_modules(&dependencies));
        Self { directory, aliases, dependencies, soft_dependencies }
    }

    /// Loads the network drivers for all devices that are there. Returns the names of the modules that were loaded.
    ///
    /// A module that the kernel refuses is told on the console and passed over.
    pub fn load_network_drivers(&self, root: &Root) -> Vec<String> {
        let mut tried = BTreeSet::new();
        let mut loaded = Vec::new();
        let mut known = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let there = modaliases(root);
            let new: BTreeSet<&String> = there.difference(&known).collect();
            if new.is_empty() {
                break;
            }
            for name in self.drivers_for(&new) {
                self.load(root, &name, &mut tried, &mut loaded);
            }
            known = there;
        }
        loaded
    }

    /// Loads the module of this name, after all that it needs.
    ///
    /// # Errors
    /// That there is no such module, or what the kernel said.
    pub fn load_named(&self, root: &Root, name: &str) -> Result<(), String> {
        let entry = self.entry(name).ok_or("the OS image has no such module")?;
        let mut tried = BTreeSet::new();
        for needed in &entry.needs {
            self.load(root, needed, &mut tried, &mut Vec::new());
        }
        insert(&root.at(format!("{}/{}", self.directory, entry.path))).map(drop).map_err(|error| error.to_string())
    }

    /// Names of the wanted modules whose aliases match one of the devices.
    fn drivers_for(&self, devices: &BTreeSet<&String>) -> BTreeSet<String> {
        let asks = |alias: &str| devices.iter().any(|device| gap_modalias::matches(alias, device));
        self.aliases.iter().filter(|(alias, _)| asks(alias)).map(|(_, name)| name.clone()).collect()
    }

    /// Loads a module after everything that it needs.
    fn load(&self, root: &Root, name: &str, tried: &mut BTreeSet<String>, loaded: &mut Vec<String>) {
        // Marked before the dependencies are followed, so that a circle in the index ends.
        if !tried.insert(name.to_owned()) {
            return;
        }
        let Some(entry) = self.entry(name) else { return };
        for needed in &entry.needs {
            self.load(root, needed, tried, loaded);
        }
        match insert(&root.at(format!("{}/{}", self.directory, entry.path))) {
            Ok(true) => loaded.push(name.to_owned()),
            Ok(false) => {}
            Err(error) => console::say(format_args!("module {name} is not loaded: {error}")),
        }
    }

    /// What the indexes say of a module: direct and indirect needs, those first that `modules.softdep` wants before
    /// (`softdep r8169 pre: realtek post: …`).
    fn entry(&self, name: &str) -> Option<Entry> {
        let mut lines = self.dependencies.lines().filter_map(|line| line.split_once(':'));
        let (path, needs) = lines.find(|(path, _)| module_name(path).as_deref() == Some(name))?;
        let soft = self.soft_dependencies.lines().filter_map(|line| line.strip_prefix("softdep ")?.split_once(" pre:"));
        let soft = soft.filter(|(of, _)| normalized(of) == name).flat_map(|(_, before)| {
            before.split_ascii_whitespace().take_while(|word| !word.ends_with(':')).map(normalized)
        });
        let needs = needs.split_ascii_whitespace().filter_map(module_name).chain(soft).collect();
        Some(Entry { path: path.to_owned(), needs })
    }
}

/// Text of an index. What is not UTF-8 in it names no module.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The wanted modules of `modules.dep` (`path: path path …`).
fn wanted_modules(dependencies: &str) -> BTreeSet<String> {
    let paths = dependencies.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path);
    paths.filter(|path| WANTED.iter().any(|prefix| path.starts_with(prefix))).filter_map(module_name).collect()
}

/// The lines of `modules.alias` (`alias PATTERN MODULE`) for these modules.
fn wanted_aliases(aliases: &str, wanted: &BTreeSet<String>) -> Vec<(String, String)> {
    let lines = aliases.lines().filter_map(|line| line.strip_prefix("alias ")?.trim_end().rsplit_once(' '));
    let mut last = ("", false);
    let lines = lines.filter(|(_, name)| {
        // The aliases of a module follow one another.
        if last.0 != *name {
            last = (name, wanted.contains(*name));
        }
        last.1
    });
    lines.map(|(pattern, name)| (pattern.to_owned(), name.to_owned())).collect()
}

/// Hands a module file to the kernel; `false` when it was there before or found nothing to drive.
fn insert(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let flags = if path.extension().is_some_and(|extension| extension == "ko") { 0 } else { COMPRESSED_FILE };
    match finit_module(file, c"", flags) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The modaliases of all devices.
fn modaliases(root: &Root) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for bus in root.names("/sys/bus", MAX_DEVICES) {
        let devices = format!("/sys/bus/{bus}/devices");
        for device in root.names(&devices, MAX_DEVICES) {
            all.extend(root.line(format!("{devices}/{device}/modalias")));
        }
    }
    all
}

/// The kernel's spelling of a module's name: `modules.dep` has file names, where a hyphen stands for an underscore.
fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/net/virtio_net.ko.xz` → `virtio_net`. `None` for a path that leads out of the directory.
fn module_name(path: &str) -> Option<String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let file = path.rsplit('/').next()?;
    Some(normalized(file.split('.').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIASES: &str = "# Aliases\n\
        alias virtio:d00000001v* virtio_net\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n\
        alias of:N*T*Cbrcm,x-y* other\n";
    const DEPENDENCIES: &str = "kernel/net/core/failover.ko.xz:\n\
        kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n\
        kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz\n\
        kernel/drivers/net/ethernet/intel/e1000/e1000.ko.xz:\n\
        kernel/drivers/block/virtio_blk.ko.xz:\n\
        ../../../evil.ko:\n";

    const SOFT: &str = "# x\nsoftdep virtio-net pre: realtek post: after\nsoftdep none pre: x\n";

    fn modules() -> Modules {
        Modules::parse("/usr/lib/modules/6.12".into(), ALIASES, DEPENDENCIES.into(), String::new())
    }

    fn drivers_for(devices: &[&str]) -> Vec<String> {
        let devices: Vec<String> = devices.iter().map(|&device| device.to_owned()).collect();
        modules().drivers_for(&devices.iter().collect()).into_iter().collect()
    }

    #[test]
    fn only_network_drivers_of_devices_that_are_there_are_wanted() {
        assert_eq!(drivers_for(&["virtio:d00000001v00001AF4", "virtio:d00000002v00001AF4"]), ["virtio_net"]);
        assert_eq!(drivers_for(&["pci:v00008086d0000100Esv1sd2bc02sc00i00", "of:NaTbCbrcm,x-y"]), ["e1000"]);
        assert!(drivers_for(&[]).is_empty());
    }

    #[test]
    fn dependencies_are_loaded_first_and_each_module_once() {
        let mut tried = BTreeSet::new();
        modules().load(&Root::new("/nonexistent"), "virtio_net", &mut tried, &mut Vec::new());
        assert_eq!(tried, ["failover", "net_failover", "virtio_net"].map(String::from).into());
        let entry = modules().entry("virtio_net").unwrap();
        assert_eq!(entry.path, "kernel/drivers/net/virtio_net.ko.xz");
        assert_eq!(entry.needs, ["net_failover", "failover"]);
    }

    #[test]
    fn soft_dependencies_come_before_as_well() {
        let modules = Modules { soft_dependencies: SOFT.into(), ..modules() };
        assert_eq!(modules.entry("virtio_net").unwrap().needs, ["net_failover", "failover", "realtek"]);
        assert!(modules.entry("failover").unwrap().needs.is_empty());
    }

    #[test]
    fn a_circle_of_dependencies_ends() {
        let modules = Modules::parse("/x".into(), "", "a.ko: b.ko\nb.ko: a.ko\n".into(), String::new());
        let mut tried = BTreeSet::new();
        modules.load(&Root::new("/nonexistent"), "a", &mut tried, &mut Vec::new());
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn a_module_that_is_not_there_is_told() {
        let root = Root::new("/nonexistent");
        assert_eq!(modules().load_named(&root, "nvidia"), Err("the OS image has no such module".to_owned()));
        assert!(modules().load_named(&root, "virtio_net").unwrap_err().contains("No such file"));
    }

    #[test]
    fn paths_that_lead_out_of_the_directory_are_ignored() {
        assert_eq!(modules().entry("evil"), None);
    }
}
