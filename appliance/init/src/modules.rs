//! Kernel modules, in the order that the initramfs was built with.
//!
//! Modules of file systems that only some media need are left until such a file system is seen: one of them takes
//! longer to load than all the rest of the boot.

use rustix::{io::Errno, system::finit_module};
use std::{fs, fs::File, path::Path, path::PathBuf};

use crate::{Attempt, Stop, story::Story};

/// Modules that are left until a file system of the kind on the left is to be mounted. What a kernel has built in is
/// not in the initramfs; what it needs besides is loaded at once like all others.
const ON_DEMAND: [(&str, &[&str]); 5] = [
    ("ext4", &["crc16.ko", "mbcache.ko", "jbd2.ko", "ext4.ko"]),
    ("xfs", &["xfs.ko"]),
    ("exfat", &["nls_utf8.ko", "exfat.ko"]),
    ("iso9660", &["nls_utf8.ko", "isofs.ko"]),
    ("vfat", &["fat.ko", "nls_cp437.ko", "nls_ascii.ko", "nls_utf8.ko", "vfat.ko"]),
];

/// The modules of the initramfs.
#[derive(Debug, Default)]
pub struct Modules {
    directory: PathBuf,
    /// Modules that are in the kernel.
    pub loaded: usize,
    /// Modules whose hardware this machine does not have.
    pub idle: usize,
    /// Modules that are left for later, in order.
    pub deferred: Vec<String>,
}

impl Modules {
    /// Loads the modules that `gap/modules/order` names, one file name a line, but for those left for later.
    ///
    /// One that the kernel refuses is told and passed over: whether it was needed shows itself later, by what is
    /// missing.
    ///
    /// # Errors
    /// [`Stop`] when the list cannot be read, or names what is not in its directory.
    pub fn load_from(root: &Path, story: &Story) -> Result<Self, Stop> {
        let directory = root.join("gap/modules");
        let order = fs::read_to_string(directory.join("order"))
            .attempt(|| "reading the module list /gap/modules/order".into())?;
        let (later, now): (Vec<&str>, Vec<&str>) = names(&order)?.into_iter().partition(|name| is_on_demand(name));
        let deferred = later.into_iter().map(str::to_owned).collect();
        let mut modules = Self { directory, deferred, ..Self::default() };
        for name in now {
            modules.load(name, story)?;
        }
        Ok(modules)
    }

    /// Loads what is left for a file system.
    ///
    /// # Errors
    /// [`Stop`] when a module of the list is not there.
    pub fn load_for(&mut self, file_system: &str, story: &Story) -> Result<(), Stop> {
        let (wanted, rest) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|name| needs(file_system).contains(&name.as_str()));
        self.deferred = rest;
        let wanted: Vec<String> = wanted;
        wanted.iter().try_for_each(|name| self.load(name, story))
    }

    fn load(&mut self, name: &str, story: &Story) -> Result<(), Stop> {
        let file = File::open(self.directory.join(name)).attempt(|| format!("opening the module {name}"))?;
        match finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => self.loaded += 1,
            Err(Errno::NODEV) => self.idle += 1,
            Err(error) => story.tell(format_args!("module {name} is not loaded: {error}")),
        }
        Ok(())
    }
}

fn needs(file_system: &str) -> &'static [&'static str] {
    ON_DEMAND.iter().find(|(kind, _)| *kind == file_system).map_or(&[], |(_, names)| names)
}

fn is_on_demand(name: &str) -> bool {
    ON_DEMAND.iter().any(|(_, names)| names.contains(&name))
}

fn names(order: &str) -> Result<Vec<&str>, Stop> {
    order
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| match line.contains('/') || line.starts_with('.') {
            true => Err(Stop::Failed(format!("/gap/modules/order names `{line}`, which is no plain file name"))),
            false => Ok(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Consoles;
    use std::sync::Arc;

    #[test]
    fn the_order_is_kept_and_stays_in_its_directory() {
        assert_eq!(names("b.ko\na.ko\n\n").unwrap(), ["b.ko", "a.ko"]);
        assert!(names("../b.ko").is_err());
        assert!(names("x/b.ko").is_err());
    }

    #[test]
    fn modules_of_a_file_system_wait_until_it_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("gap/modules");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("order"), "jbd2.ko\nxfs.ko\next4.ko\n").unwrap();
        for name in ["jbd2.ko", "xfs.ko", "ext4.ko"] {
            fs::write(directory.join(name), "no module").unwrap();
        }
        let story = Story::new(Arc::new(Consoles::open_from(root.path())));
        let mut modules = Modules::load_from(root.path(), &story).unwrap();
        assert_eq!(modules.deferred, ["jbd2.ko", "xfs.ko", "ext4.ko"]);
        modules.load_for("ext4", &story).unwrap();
        assert_eq!(modules.deferred, ["xfs.ko"]);
    }
}
