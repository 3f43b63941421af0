//! The kernel of an OS image and the modules that `gap-init` loads before it can mount that image.

use crate::{
    boot::{
        depmod::{DepmodError, ModuleTables},
        modinfo::{self, ModinfoError, canonical, split_file_name},
    },
    layer::tree::{Node, PathError, Tree, TreePath},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// Where kernel packages put the modules, each kernel in a directory of its release name.
const MODULES: &str = "usr/lib/modules";
/// Most near names that an error offers.
const SUGGESTIONS: usize = 3;

/// Without these nothing boots: device-mapper, verity and EROFS. Always loaded.
pub const REQUIRED: [&str; 3] = ["dm_mod", "dm_verity", "erofs"];

/// Loaded before [`REQUIRED`] where the kernel has it: SHA-256 with the processor's vector instructions,
/// for verity. Under emulation it was measured to be slower than the kernel's plain one.
const ALWAYS_IF_PRESENT: [&str; 1] = ["sha256_ssse3"];

/// Carried where the kernel has them and loaded when they are asked for, by device or by name: the
/// hardware that a medium may be attached to, where the site configuration comes from, the power
/// button, and the file systems that an artifact may lie on. Each takes tens of milliseconds to load
/// under emulation, and some wait for hardware.
const ON_DEMAND: [&str; 34] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "vmd",
    "ahci",
    "ata_piix",
    "sd_mod",
    "sr_mod",
    "aacraid",
    "hpsa",
    "megaraid_sas",
    "mpt3sas",
    "mpi3mr",
    "smartpqi",
    "xhci_pci",
    "ehci_pci",
    "usb_storage",
    "uas",
    "qemu_fw_cfg",
    "button",
    "evdev",
    "efivarfs",
    "loop",
    "vfat",
    "exfat",
    "ext4",
    "xfs",
    "isofs",
    "hv_storvsc",
    "vmw_pvscsi",
    "xen_blkfront",
    "mmc_block",
    "sdhci_pci",
];

/// What a module asks the kernel for by name when it is used, so that no table tells of it: file
/// systems want the character sets that their mounts name by default.
const ALSO_NEEDED: [(&str, &[&str]); 3] =
    [("vfat", &["nls_cp437", "nls_ascii", "nls_utf8"]), ("exfat", &["nls_utf8"]), ("isofs", &["nls_utf8"])];

/// The regular files of an OS image, merged.
pub trait OsFiles: Sync {
    /// Paths of the regular files below `directory`, in the order of their bytes.
    fn files_below(&self, directory: &TreePath) -> Vec<TreePath>;

    /// The bytes of one of them.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `FileTooLarge` when it is longer than
    /// [`modinfo::MAX_LEN`]; otherwise what the system said.
    fn read(&self, path: &TreePath) -> io::Result<Vec<u8>>;
}

impl OsFiles for Tree {
    fn files_below(&self, directory: &TreePath) -> Vec<TreePath> {
        let is_file = |node: &Node| matches!(node, Node::File { .. } | Node::HardLink { .. });
        self.iter()
            .filter(|(path, node)| path.is_within(directory) && is_file(node))
            .map(|(path, _)| path.clone())
            .collect()
    }

    fn read(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let node = match self.get(path) {
            Some(Node::HardLink { target }) => self.get(target),
            node => node,
        };
        match node {
            Some(Node::File { content, .. }) if content.len() <= modinfo::MAX_LEN => content.read(),
            Some(Node::File { .. }) => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Why the kernel or its modules cannot be taken from an OS image.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// There is no kernel.
    #[error("the OS image has no kernel: /{MODULES} holds no `modules.builtin`; add a layer with a kernel package")]
    NoKernel,
    /// There are several and none was chosen.
    #[error("the OS image has {} kernels ({}); keep one, or choose one by its release", .0.len(), .0.join(", "))]
    SeveralKernels(Vec<String>),
    /// The chosen one is not there.
    #[error("the OS image has no kernel `{wanted}`; it has {}", found.join(", "))]
    OtherKernel {
        /// Release that was asked for.
        wanted: String,
        /// Releases that are there.
        found: Vec<String>,
    },
    /// A required module is not there.
    #[error("kernel {kernel} has no module `{module}`{}", near(suggestions))]
    NoModule {
        /// Release of the kernel.
        kernel: String,
        /// The module.
        module: String,
        /// Names that are spelt like it.
        suggestions: Vec<String>,
    },
    /// A file could not be read.
    #[error("cannot read {path} of the OS image: {source}")]
    Read {
        /// The file.
        path: TreePath,
        /// What went wrong.
        source: io::Error,
    },
    /// A module is not one.
    #[error("cannot use the kernel module {path} of the OS image: {source}")]
    Module {
        /// The file.
        path: TreePath,
        /// What is wrong with it.
        source: ModinfoError,
    },
    /// The dependency tables cannot be made.
    #[error(transparent)]
    Depmod(#[from] DepmodError),
    /// A path in the dependency tables is none.
    #[error("the module list of kernel {kernel} names a bad path: {source}")]
    Path {
        /// Release of the kernel.
        kernel: String,
        /// What is wrong with it.
        source: PathError,
    },
}

fn near(suggestions: &[String]) -> String {
    if suggestions.is_empty() { String::new() } else { format!("; did you mean {}?", suggestions.join(", ")) }
}

/// The kernel of an OS image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The directory of its modules.
    pub modules: TreePath,
    /// The bootable image.
    pub image: TreePath,
}

impl Kernel {
    /// Finds the kernel of `files`; `wanted` chooses one when there are several.
    ///
    /// # Errors
    /// [`ModulesError`] when there is none, several and no choice, or not the chosen one.
    pub fn find(files: &dyn OsFiles, wanted: Option<&str>) -> Result<Self, ModulesError> {
        let root = TreePath::new(MODULES).map_err(|source| ModulesError::Path { kernel: "?".into(), source })?;
        let releases: BTreeSet<String> = files
            .files_below(&root)
            .iter()
            .filter(|path| path.name() == b"modules.builtin")
            .filter_map(|path| path.parent().filter(|directory| directory.parent().as_ref() == Some(&root)))
            .filter_map(|directory| String::from_utf8(directory.name().to_vec()).ok())
            .collect();
        let mut found: Vec<String> = releases.into_iter().collect();
        let release = match (wanted, found.len()) {
            (_, 0) => return Err(ModulesError::NoKernel),
            (Some(wanted), _) if found.iter().any(|release| release == wanted) => wanted.to_owned(),
            (Some(wanted), _) => return Err(ModulesError::OtherKernel { wanted: wanted.to_owned(), found }),
            (None, 1) => found.remove(0),
            (None, _) => return Err(ModulesError::SeveralKernels(found)),
        };
        let path =
            |raw: String| TreePath::new(raw).map_err(|source| ModulesError::Path { kernel: release.clone(), source });
        Ok(Self {
            modules: path(format!("{MODULES}/{release}"))?,
            image: path(format!("boot/vmlinuz-{release}"))?,
            release,
        })
    }

    /// The path of a file in the modules' directory.
    ///
    /// # Errors
    /// [`ModulesError::Path`] when `name` is none.
    pub fn file(&self, name: &str) -> Result<TreePath, ModulesError> {
        self.modules.join(name).map_err(|source| ModulesError::Path { kernel: self.release.clone(), source })
    }

    /// The bytes of the bootable image.
    ///
    /// # Errors
    /// [`ModulesError::Read`] when it is not there or cannot be read.
    pub fn read_image(&self, files: &dyn OsFiles) -> Result<Vec<u8>, ModulesError> {
        read(files, &self.image)
    }
}

/// Reads a file and names it if that fails.
pub(crate) fn read(files: &dyn OsFiles, path: &TreePath) -> Result<Vec<u8>, ModulesError> {
    files.read(path).map_err(|source| ModulesError::Read { path: path.clone(), source })
}

/// A module as the initramfs holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootModule {
    /// Its name in the kernel's spelling.
    pub name: String,
    /// The decompressed ELF file, signature included.
    pub data: Arc<[u8]>,
}

/// The modules that the initramfs carries, and how they are found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootModules {
    /// All of them, each after what it needs.
    pub modules: Vec<BootModule>,
    /// Names of those that are always loaded, in load order.
    pub always: Vec<String>,
    /// For each of the others, by name: all that must be loaded for it, itself last, in load order.
    pub on_demand: BTreeMap<String, Vec<String>>,
    /// Patterns of devices and other names that ask for one of the others, and its name; in the
    /// kernel's link order, which decides between two drivers for one device.
    pub aliases: Vec<(String, String)>,
}

impl BootModules {
    /// Takes the modules that booting needs from the image.
    ///
    /// # Errors
    /// [`ModulesError`] when a required one is missing, or one cannot be read.
    pub fn take(files: &dyn OsFiles, kernel: &Kernel, tables: &ModuleTables) -> Result<Self, ModulesError> {
        let builtin = read(files, &kernel.file("modules.builtin")?)?;
        let graph = ModuleGraph::new(tables, &String::from_utf8_lossy(&builtin));
        for name in REQUIRED {
            if !graph.has(name) {
                let (kernel, module) = (kernel.release.clone(), name.to_owned());
                return Err(ModulesError::NoModule { kernel, module, suggestions: graph.near(name) });
            }
        }
        let mut order = graph.load_order();
        ALWAYS_IF_PRESENT.into_iter().chain(REQUIRED).for_each(|name| order.add(name));
        let always: Vec<String> = order.names().map(str::to_owned).collect();
        let mut on_demand = BTreeMap::new();
        for name in ON_DEMAND.into_iter().filter(|name| graph.modules.contains_key(*name)) {
            order.add(name);
            let mut alone = graph.load_order();
            alone.add(name);
            on_demand.insert(name.to_owned(), alone.names().map(str::to_owned).collect());
        }
        let aliases = graph.aliases_of(|module| on_demand.contains_key(module));
        let read_one = |(name, relative): &(String, &str)| read_module(files, name, &kernel.file(relative)?);
        let modules = order.modules.iter().map(read_one).collect::<Result<_, _>>()?;
        Ok(Self { modules, always, on_demand, aliases })
    }
}

fn read_module(files: &dyn OsFiles, name: &str, path: &TreePath) -> Result<BootModule, ModulesError> {
    let compression = split_file_name(&String::from_utf8_lossy(path.name())).map(|(_, compression)| compression);
    let in_module = |source| ModulesError::Module { path: path.clone(), source };
    let compression =
        compression.ok_or_else(|| in_module(ModinfoError::NotAModule("its name does not end in .ko".into())))?;
    let data = modinfo::decompress(read(files, path)?, compression).map_err(in_module)?;
    Ok(BootModule { name: name.to_owned(), data: data.into() })
}

/// Modules of a kernel by name, with what each needs.
struct ModuleGraph<'a> {
    /// Path below the modules' directory, and paths of all dependencies, last one to be loaded first.
    modules: BTreeMap<String, (&'a str, Vec<String>)>,
    /// What should be there before a module, though it would load without.
    before: BTreeMap<String, Vec<&'a str>>,
    /// The names that modules also go by, and the modules, in the order of the table.
    aliases: Vec<(&'a str, &'a str)>,
    /// Part of the kernel image.
    builtin: BTreeSet<String>,
}

impl<'a> ModuleGraph<'a> {
    fn new(tables: &'a ModuleTables, builtin: &str) -> Self {
        let name_of = |path: &str| split_file_name(path.rsplit('/').next().unwrap_or(path)).map(|(name, _)| name);
        let modules = tables.dep.lines().filter_map(|line| {
            let (path, dependencies) = line.split_once(':')?;
            Some((name_of(path)?, (path, dependencies.split_ascii_whitespace().filter_map(name_of).collect())))
        });
        let mut before: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for line in tables.softdep.lines() {
            let Some((name, dependencies)) = line.strip_prefix("softdep ").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            let words = dependencies.split_ascii_whitespace().skip_while(|word| *word != "pre:").skip(1);
            before.entry(canonical(name)).or_default().extend(words.take_while(|word| *word != "post:"));
        }
        let alias = |line: &'a str| line.strip_prefix("alias ").and_then(|rest| rest.rsplit_once(' '));
        let aliases = tables.alias.lines().filter_map(alias).collect();
        Self { modules: modules.collect(), before, aliases, builtin: builtin.lines().filter_map(name_of).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.modules.contains_key(name) || self.builtin.contains(name)
    }

    /// The modules that `name` stands for: its own, or those that have it as an alias.
    fn resolve(&self, name: &str) -> Vec<String> {
        let own = canonical(name);
        if self.has(&own) {
            return vec![own];
        }
        self.aliases.iter().filter(|(alias, _)| *alias == name).map(|(_, module)| canonical(module)).collect()
    }

    /// Aliases of the modules that `wanted` takes.
    fn aliases_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let owned = |(alias, module): &(&str, &str)| ((*alias).to_owned(), (*module).to_owned());
        self.aliases.iter().filter(|(_, module)| wanted(module)).map(owned).collect()
    }

    fn load_order(&self) -> LoadOrder<'_> {
        LoadOrder { graph: self, done: BTreeSet::new(), modules: Vec::new() }
    }

    /// Names that are spelt like `name`, nearest first.
    fn near(&self, name: &str) -> Vec<String> {
        let mut near: Vec<(usize, &String)> =
            self.modules.keys().map(|own| (strsim::levenshtein(own, name), own)).collect();
        near.retain(|(distance, _)| *distance <= name.len() / 3);
        near.sort();
        near.into_iter().take(SUGGESTIONS).map(|(_, own)| own.clone()).collect()
    }
}

/// Modules in the order of loading, each after what it needs.
struct LoadOrder<'a> {
    graph: &'a ModuleGraph<'a>,
    done: BTreeSet<String>,
    modules: Vec<(String, &'a str)>,
}

impl LoadOrder<'_> {
    /// Adds a module and what it needs, unless it is there, built in, or unknown.
    fn add(&mut self, name: &str) {
        let Some((path, dependencies)) = self.graph.modules.get(name) else { return };
        if !self.done.insert(name.to_owned()) {
            return;
        }
        for wanted in self.graph.before.get(name).into_iter().flatten() {
            for module in self.graph.resolve(wanted) {
                self.add(&module);
            }
        }
        for dependency in dependencies.iter().rev() {
            self.add(dependency);
        }
        for (user, needed) in ALSO_NEEDED {
            if user == name {
                needed.iter().for_each(|needed| self.add(needed));
            }
        }
        self.modules.push((name.to_owned(), path));
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::{Content, Meta};

    fn tree(paths: &[&str]) -> Tree {
        let file = |text: &str| Node::File { meta: Meta::default(), content: Content::bytes(text.as_bytes()) };
        paths.iter().map(|path| (TreePath::new(path).unwrap(), file(path))).collect()
    }

    #[test]
    fn the_kernel_is_where_its_modules_are() {
        let files =
            tree(&["usr/lib/modules/6.12.1/modules.builtin", "usr/lib/modules/6.12.1/kernel/x/modules.builtin"]);
        let kernel = Kernel::find(&files, None).unwrap();
        assert_eq!(kernel.release, "6.12.1");
        assert_eq!(kernel.image.as_bytes(), b"boot/vmlinuz-6.12.1");
        assert!(matches!(Kernel::find(&tree(&["etc/hosts"]), None), Err(ModulesError::NoKernel)));
    }

    #[test]
    fn of_several_kernels_one_must_be_chosen() {
        let files = tree(&["usr/lib/modules/6.1/modules.builtin", "usr/lib/modules/6.12/modules.builtin"]);
        assert!(
            matches!(Kernel::find(&files, None), Err(ModulesError::SeveralKernels(found)) if found == ["6.1", "6.12"])
        );
        assert_eq!(Kernel::find(&files, Some("6.1")).unwrap().release, "6.1");
        assert!(matches!(Kernel::find(&files, Some("6.2")), Err(ModulesError::OtherKernel { .. })));
    }

    fn tables() -> ModuleTables {
        ModuleTables {
            dep: "kernel/dm-verity.ko.xz: kernel/dm-bufio.ko.xz kernel/dm-mod.ko.xz\nkernel/dm-bufio.ko.xz: kernel/dm-mod.ko.xz\n\
                  kernel/dm-mod.ko.xz:\nkernel/erofs.ko.xz: kernel/crc.ko.xz\nkernel/crc.ko.xz:\nkernel/crc-fast.ko.xz:\n\
                  kernel/loop.ko:\nkernel/virtio_blk.ko:\n"
                .into(),
            alias: "alias crypto-crc crc_fast\n".into(),
            softdep: "softdep crc post: loop pre: crypto-crc\n".into(),
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let tables = tables();
        let graph = ModuleGraph::new(&tables, "kernel/drivers/virtio/virtio_pci.ko\n");
        let mut order = graph.load_order();
        for name in ["virtio_pci", "dm_verity", "erofs", "dm_mod", "erofs"] {
            order.add(name);
        }
        let names: Vec<_> = order.modules.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dm_mod", "dm_bufio", "dm_verity", "crc_fast", "crc", "erofs"]);
        assert!(graph.has("virtio_pci"));
    }

    #[test]
    fn a_missing_required_module_is_named_with_near_ones() {
        let mut tables = tables();
        tables.dep = tables.dep.replace("kernel/erofs.ko.xz:", "kernel/erofs2.ko.xz:");
        let files = tree(&["usr/lib/modules/6.12/modules.builtin"]);
        let kernel = Kernel::find(&files, None).unwrap();
        let error = BootModules::take(&files, &kernel, &tables).unwrap_err();
        assert_eq!(error.to_string(), "kernel 6.12 has no module `erofs`; did you mean erofs2?");
    }

    #[test]
    fn hardware_is_left_until_it_is_asked_for() {
        let raw = |name: &str| format!("usr/lib/modules/6.12/kernel/{name}.ko");
        let names = ["dm-mod", "dm-verity", "erofs", "virtio_blk", "scsi-mod", "virtio_scsi", "radio"];
        let mut paths: Vec<String> = names.iter().map(|name| raw(name)).collect();
        paths.push("usr/lib/modules/6.12/modules.builtin".into());
        let files = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let tables = ModuleTables {
            dep: "kernel/dm-mod.ko:\nkernel/dm-verity.ko: kernel/dm-mod.ko\nkernel/erofs.ko:\nkernel/virtio_blk.ko:\n\
                  kernel/scsi-mod.ko:\nkernel/virtio_scsi.ko: kernel/scsi-mod.ko\nkernel/radio.ko:\n"
                .into(),
            alias: "alias virtio:d2v* virtio_blk\nalias usb:x* radio\nalias virtio:d8v* virtio_scsi\nalias fs-erofs erofs\n".into(),
            softdep: String::new(),
        };
        let boot = BootModules::take(&files, &Kernel::find(&files, None).unwrap(), &tables).unwrap();
        assert_eq!(boot.always, ["dm_mod", "dm_verity", "erofs"]);
        assert_eq!(boot.on_demand.get("virtio_scsi").unwrap(), &["scsi_mod", "virtio_scsi"]);
        let aliases: Vec<_> = boot.aliases.iter().map(|(alias, module)| (alias.as_str(), module.as_str())).collect();
        assert_eq!(aliases, [("virtio:d2v*", "virtio_blk"), ("virtio:d8v*", "virtio_scsi")]);
        let carried: Vec<_> = boot.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(carried, ["dm_mod", "dm_verity", "erofs", "virtio_blk", "scsi_mod", "virtio_scsi"]);
    }
}
