//! Kernel modules for the devices that are plugged in, found by `modules.alias` and `modules.dep` (the text files that
//! `depmod` makes, depmod(8)).
//!
//! Only drivers that the network needs are loaded. Module files come from the verified image, so their content is
//! trusted; compressed ones are handed to the kernel as they are (`CONFIG_MODULE_DECOMPRESS`).

use crate::{console, root::Root};
use rustix::{io::Errno, system::finit_module};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
};

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

/// The indexes of one kernel's modules.
#[derive(Debug)]
pub struct Modules {
    directory: String,
    aliases: String,
    dependencies: BTreeMap<String, Entry>,
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
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(source) => Err(ModulesError::Index { path, source }),
            }
        };
        let mut dependencies = parse_dependencies(&index("modules.dep")?);
        // Only some drivers have soft dependencies, and an image may do without the index.
        add_soft_dependencies(&mut dependencies, &index("modules.softdep").unwrap_or_default());
        Ok(Self { aliases: index("modules.alias")?, dependencies, directory })
    }

    /// Loads the network drivers for all devices that are there. Returns the names of the modules that were loaded.
    ///
    /// A module that the kernel refuses is told on the console and passed over.
    pub fn load_network_drivers(&self, root: &Root) -> Vec<String> {
        let mut tried = BTreeSet::new();
        let mut loaded = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let before = tried.len();
            for name in self.drivers_for(&modaliases(root)) {
                self.load(root, &name, &mut tried, &mut loaded);
            }
            if tried.len() == before {
                break;
            }
        }
        loaded
    }

    /// Names of the wanted modules whose aliases match one of the devices.
    fn drivers_for(&self, devices: &BTreeSet<String>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for line in self.aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("alias"), Some(alias), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let matches = |device: &String| gap_modalias::matches(alias, device);
            if self.is_wanted(name) && devices.iter().any(matches) {
                names.insert(name.to_owned());
            }
        }
        names
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.dependencies.get(name).is_some_and(|entry| WANTED.iter().any(|prefix| entry.path.starts_with(prefix)))
    }

    /// Loads a module after everything that it needs.
    fn load(&self, root: &Root, name: &str, tried: &mut BTreeSet<String>, loaded: &mut Vec<String>) {
        // Marked before the dependencies are followed, so that a circle in the index ends.
        if !tried.insert(name.to_owned()) {
            return;
        }
        let Some(entry) = self.dependencies.get(name) else { return };
        for needed in &entry.needs {
            self.load(root, needed, tried, loaded);
        }
        match insert(&root.at(format!("{}/{}", self.directory, entry.path))) {
            Ok(true) => loaded.push(name.to_owned()),
            Ok(false) => {}
            Err(error) => console::say(format_args!("module {name} is not loaded: {error}")),
        }
    }
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

/// Parses `modules.dep`: `path: path path …`, direct and indirect needs, keyed by module name.
fn parse_dependencies(text: &str) -> BTreeMap<String, Entry> {
    let entry = |line: &str| {
        let (path, needs) = line.split_once(':')?;
        let needs = needs.split_ascii_whitespace().filter_map(module_name).collect();
        Some((module_name(path)?, Entry { path: path.to_owned(), needs }))
    };
    text.lines().filter_map(entry).collect()
}

/// Adds what `modules.softdep` wants loaded before: `softdep r8169 pre: realtek post: …`.
fn add_soft_dependencies(dependencies: &mut BTreeMap<String, Entry>, text: &str) {
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("softdep ") else { continue };
        let Some((name, rest)) = rest.split_once(" pre:") else { continue };
        let Some(entry) = dependencies.get_mut(&normalized(name)) else { continue };
        entry.needs.extend(rest.split_ascii_whitespace().take_while(|word| !word.ends_with(':')).map(normalized));
    }
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

    fn modules() -> Modules {
        Modules {
            directory: "/usr/lib/modules/6.12".into(),
            aliases: ALIASES.into(),
            dependencies: parse_dependencies(DEPENDENCIES),
        }
    }

    #[test]
    fn only_network_drivers_of_devices_that_are_there_are_wanted() {
        let devices = ["virtio:d00000001v00001AF4", "virtio:d00000002v00001AF4"].map(String::from).into();
        assert_eq!(modules().drivers_for(&devices), BTreeSet::from(["virtio_net".to_owned()]));
        assert!(modules().drivers_for(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn dependencies_are_loaded_first_and_each_module_once() {
        let mut tried = BTreeSet::new();
        modules().load(&Root::new("/nonexistent"), "virtio_net", &mut tried, &mut Vec::new());
        assert_eq!(tried, ["failover", "net_failover", "virtio_net"].map(String::from).into());
        assert_eq!(modules().dependencies["virtio_net"].needs, ["net_failover", "failover"]);
    }

    #[test]
    fn soft_dependencies_come_before_as_well() {
        let mut dependencies =
            parse_dependencies("kernel/drivers/net/ethernet/realtek/r8169.ko.xz:\nphy/realtek.ko:\n");
        add_soft_dependencies(&mut dependencies, "# x\nsoftdep r8169 pre: realtek post: after\nsoftdep none pre: x\n");
        assert_eq!(dependencies["r8169"].needs, ["realtek"]);
    }

    #[test]
    fn a_circle_of_dependencies_ends() {
        let dependencies = parse_dependencies("a.ko: b.ko\nb.ko: a.ko\n");
        let modules = Modules { directory: "/x".into(), aliases: String::new(), dependencies };
        let mut tried = BTreeSet::new();
        modules.load(&Root::new("/nonexistent"), "a", &mut tried, &mut Vec::new());
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn paths_that_lead_out_of_the_directory_are_ignored() {
        assert!(!modules().dependencies.contains_key("evil"));
    }
}
