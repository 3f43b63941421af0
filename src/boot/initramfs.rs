//! The initial RAM file system: `gap-init`, the trust root and the kernel modules it needs, as a
//! cpio archive in the "new ASCII" format (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The archive is compressed with zstd. The kernel unpacks it beside its own start, and no delay
//! could be told from the noise; firmware, which is slow at reading, has a fifth to read.
//!
//! # Kernel modules
//! They lie decompressed, signatures included, in `/gap/modules`, with three lists:
//! - `order`: file names of those that are always loaded, one a line, in load order.
//! - `alias`: `PATTERN FILE` a line: a device whose `modalias` in sysfs matches PATTERN (`*`, `?` and
//!   `[…]` as in glob(7)) wants FILE; so does who mounts a file system, by the name `fs-TYPE`.
//! - `depend`: `FILE: FILE…` a line: what to load for each file that `alias` names, itself last.

use crate::boot::modules::BootModules;
use cpio::{NewcBuilder, newc::ModeFileType};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Directory of the kernel modules, below the root of the archive.
const MODULES: &str = "gap/modules";
/// Directories that `gap-init` mounts on, and those that its files lie in.
const DIRECTORIES: [&str; 8] = ["dev", "gap", MODULES, "medium", "proc", "run", "sys", "sysroot"];

/// How hard zstd tries. More takes seconds and gains little.
const ZSTD_LEVEL: i32 = 9;

/// What goes into the archive.
#[derive(Debug, Clone, Copy)]
pub struct Initramfs<'a> {
    /// The static `gap-init` program (ELF).
    pub init: &'a [u8],
    /// The trust file, byte for byte.
    pub trust: &'a [u8],
    /// Source date of the release, seconds since 1970: the time of every entry, and the least that
    /// the machine's clock may show.
    pub build_time: u64,
    /// The kernel modules.
    pub modules: &'a BootModules,
}

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The format keeps times in 32 bits.
    #[error("the source date {0} does not fit the 32 bits that an initramfs has for times")]
    Time(u64),
    /// The format keeps sizes in 32 bits.
    #[error("`{name}` has {len} bytes, which is more than an initramfs can hold (4 GiB)")]
    TooLarge {
        /// The entry.
        name: String,
        /// Its length.
        len: usize,
    },
    /// A module's name cannot be the name of a file in the archive.
    #[error("a kernel module is called `{}`, which is not a file name", .0.escape_debug())]
    ModuleName(String),
    /// Two modules have one name.
    #[error("the kernel module `{0}` is listed twice")]
    Duplicate(String),
    /// The archive could not be written.
    #[error("cannot write the initramfs: {0}")]
    Io(#[from] io::Error),
}

/// The name of a module's file.
fn file_name(module: &str) -> String {
    format!("{module}.ko")
}

/// One entry of the archive.
enum Entry<'a> {
    Directory,
    File { mode: u32, data: &'a [u8] },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

impl Initramfs<'_> {
    /// The compressed archive. The same contents give the same bytes.
    ///
    /// # Errors
    /// [`InitramfsError`] when a size, the date or a module's name does not fit the format.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        Ok(zstd::bulk::compress(&self.archive()?, ZSTD_LEVEL)?)
    }

    /// The archive: entries in the order of their names, numbered from 1, owned by root, dated with
    /// the source date.
    fn archive(&self) -> Result<Vec<u8>, InitramfsError> {
        let build_time = format!("{}\n", self.build_time);
        let lists = [("alias", self.alias_list()), ("depend", self.depend_list()), ("order", self.order_list())];
        let mut entries: BTreeMap<String, Entry<'_>> =
            DIRECTORIES.iter().map(|name| ((*name).to_owned(), Entry::Directory)).collect();
        entries.insert("init".into(), Entry::File { mode: 0o755, data: self.init });
        entries.insert("dev/console".into(), Entry::CharDevice { mode: 0o600, major: 5, minor: 1 });
        entries.insert("dev/null".into(), Entry::CharDevice { mode: 0o666, major: 1, minor: 3 });
        entries.insert("gap/trust.toml".into(), Entry::File { mode: 0o444, data: self.trust });
        entries.insert("gap/build-time".into(), Entry::File { mode: 0o444, data: build_time.as_bytes() });
        for (name, text) in &lists {
            entries.insert(format!("{MODULES}/{name}"), Entry::File { mode: 0o444, data: text.as_bytes() });
        }
        for module in &self.modules.modules {
            let name = &module.name;
            if name.is_empty()
                || name.contains(|character: char| {
                    character == '/' || character.is_ascii_whitespace() || character == '\0'
                })
            {
                return Err(InitramfsError::ModuleName(name.clone()));
            }
            let entry = Entry::File { mode: 0o444, data: &module.data };
            if entries.insert(format!("{MODULES}/{}", file_name(name)), entry).is_some() {
                return Err(InitramfsError::Duplicate(name.clone()));
            }
        }
        self.write(&entries)
    }

    fn order_list(&self) -> String {
        self.modules.always.iter().map(|name| format!("{}\n", file_name(name))).collect()
    }

    fn alias_list(&self) -> String {
        self.modules.aliases.iter().map(|(pattern, name)| format!("{pattern} {}\n", file_name(name))).collect()
    }

    fn depend_list(&self) -> String {
        let line = |(name, needed): (&String, &Vec<String>)| {
            let needed: String = needed.iter().map(|name| format!(" {}", file_name(name))).collect();
            format!("{}:{needed}\n", file_name(name))
        };
        self.modules.on_demand.iter().map(line).collect()
    }

    fn write(&self, entries: &BTreeMap<String, Entry<'_>>) -> Result<Vec<u8>, InitramfsError> {
        let mtime = u32::try_from(self.build_time).map_err(|_| InitramfsError::Time(self.build_time))?;
        let mut archive = Vec::new();
        for (ino, (name, entry)) in (1..).zip(entries) {
            let builder = NewcBuilder::new(name).ino(ino).mtime(mtime);
            let (builder, data): (_, &[u8]) = match *entry {
                Entry::Directory => (builder.nlink(2).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[]),
                Entry::File { mode, data } => (builder.mode(mode).set_mode_file_type(ModeFileType::Regular), data),
                Entry::CharDevice { mode, major, minor } => {
                    let builder = builder.mode(mode).set_mode_file_type(ModeFileType::Char);
                    (builder.rdev_major(major).rdev_minor(minor), &[])
                }
            };
            let too_large = || InitramfsError::TooLarge { name: name.clone(), len: data.len() };
            let mut writer = builder.write(&mut archive, u32::try_from(data.len()).map_err(|_| too_large())?);
            writer.write_all(data)?;
            writer.finish()?;
        }
        Ok(cpio::newc::trailer(archive)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::modules::BootModule;
    use std::process::{Command, Stdio};

    fn modules(names: &[&str]) -> BootModules {
        let module = |name: &&str| BootModule { name: (*name).into(), data: name.as_bytes().into() };
        BootModules { modules: names.iter().map(module).collect(), ..BootModules::default() }
    }

    fn archive(modules: &BootModules) -> Result<Vec<u8>, InitramfsError> {
        Initramfs { init: b"ELF", trust: b"t = 1\n", build_time: 1_700_000_000, modules }.archive()
    }

    fn text_of(archive: &[u8], wanted: &str) -> String {
        let mut rest = archive;
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            assert!(!reader.entry().is_trailer(), "{wanted} is there");
            if reader.entry().name() == wanted {
                let mut text = String::new();
                io::Read::read_to_string(&mut reader, &mut text).unwrap();
                return text;
            }
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn bsdtar_lists_what_was_put_in() {
        let archive = archive(&modules(&["loop", "dm_mod"])).unwrap();
        let mut bsdtar = Command::new("bsdtar")
            .args(["-tvnf", "-", "--numeric-owner"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bsdtar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = bsdtar.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let console = text.lines().find(|line| line.ends_with(" dev/console")).unwrap();
        assert!(console.starts_with("crw-------") && console.contains("5,1"), "{console}");
        let init = text.lines().find(|line| line.ends_with(" init")).unwrap();
        assert!(init.starts_with("-rwxr-xr-x  1 0      0           3 Nov 14  2023"), "{init}");
        let parent = text.lines().position(|line| line.ends_with(" gap/modules")).unwrap();
        let child = text.lines().position(|line| line.ends_with(" gap/modules/dm_mod.ko")).unwrap();
        assert!(parent < child, "a directory stands before what lies in it");
    }

    #[test]
    fn the_lists_tell_what_to_load_and_when() {
        let mut modules = modules(&["dm_mod", "scsi_mod", "sd_mod"]);
        modules.always = vec!["dm_mod".into()];
        modules.aliases = vec![("scsi:t-0x00*".into(), "sd_mod".into())];
        modules.on_demand = [("sd_mod".to_owned(), vec!["scsi_mod".to_owned(), "sd_mod".to_owned()])].into();
        let archive = archive(&modules).unwrap();
        assert_eq!(text_of(&archive, "gap/modules/order"), "dm_mod.ko\n");
        assert_eq!(text_of(&archive, "gap/modules/alias"), "scsi:t-0x00* sd_mod.ko\n");
        assert_eq!(text_of(&archive, "gap/modules/depend"), "sd_mod.ko: scsi_mod.ko sd_mod.ko\n");
    }

    #[test]
    fn what_is_built_is_the_archive_compressed() {
        let modules = modules(&["loop"]);
        let initramfs = Initramfs { init: &[7; 9000], trust: b"", build_time: 0, modules: &modules };
        let built = initramfs.build().unwrap();
        assert!(built.len() < 2000);
        assert_eq!(zstd::decode_all(built.as_slice()).unwrap(), initramfs.archive().unwrap());
    }

    #[test]
    fn a_module_that_would_leave_its_directory_is_refused() {
        assert!(matches!(archive(&modules(&["../../init"])), Err(InitramfsError::ModuleName(_))));
        assert!(matches!(archive(&modules(&["a b"])), Err(InitramfsError::ModuleName(_))));
    }

    #[test]
    fn a_module_named_twice_is_refused() {
        assert!(matches!(archive(&modules(&["loop", "loop"])), Err(InitramfsError::Duplicate(name)) if name == "loop"));
    }

    #[test]
    fn a_date_past_2106_is_refused() {
        let result = Initramfs { init: b"", trust: b"", build_time: 1 << 32, modules: &BootModules::default() }.build();
        assert!(matches!(result, Err(InitramfsError::Time(_))));
    }
}
