//! The initial RAM file system: `gap-init`, the trust root and the kernel modules it needs, as a
//! cpio archive in the "new ASCII" format (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The archive is left uncompressed: the kernel then copies it as it is, and what it holds was
//! measured to start faster that way than with any of the kernel's decompressors.

use crate::boot::modules::BootModule;
use cpio::{NewcBuilder, newc::ModeFileType};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Directory of the kernel modules, below the root of the archive.
const MODULES: &str = "gap/modules";
/// Directories that `gap-init` mounts on, and those that its files lie in.
const DIRECTORIES: [&str; 8] = ["dev", "gap", MODULES, "medium", "proc", "run", "sys", "sysroot"];

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
    /// Kernel modules in the order in which they are loaded.
    pub modules: &'a [BootModule],
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

/// One entry of the archive.
enum Entry<'a> {
    Directory,
    File { mode: u32, data: &'a [u8] },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

impl Initramfs<'_> {
    /// The archive: entries in the order of their names, numbered from 1, owned by root, dated with
    /// the source date.
    ///
    /// # Errors
    /// [`InitramfsError`] when a size, the date or a module's name does not fit the format.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        let build_time = format!("{}\n", self.build_time);
        let order = self.load_order();
        let mut entries: BTreeMap<String, Entry<'_>> =
            DIRECTORIES.iter().map(|name| ((*name).to_owned(), Entry::Directory)).collect();
        entries.insert("init".into(), Entry::File { mode: 0o755, data: self.init });
        entries.insert("dev/console".into(), Entry::CharDevice { mode: 0o600, major: 5, minor: 1 });
        entries.insert("dev/null".into(), Entry::CharDevice { mode: 0o666, major: 1, minor: 3 });
        entries.insert("gap/trust.toml".into(), Entry::File { mode: 0o444, data: self.trust });
        entries.insert("gap/build-time".into(), Entry::File { mode: 0o444, data: build_time.as_bytes() });
        entries.insert(format!("{MODULES}/order"), Entry::File { mode: 0o444, data: order.as_bytes() });
        for module in self.modules {
            let name = &module.name;
            if name.is_empty() || name.contains(['/', '\0', '\n']) {
                return Err(InitramfsError::ModuleName(name.clone()));
            }
            let entry = Entry::File { mode: 0o444, data: &module.data };
            if entries.insert(format!("{MODULES}/{}", module.file_name()), entry).is_some() {
                return Err(InitramfsError::Duplicate(name.clone()));
            }
        }
        self.write(&entries)
    }

    /// The text of `/gap/modules/order`: one file name a line.
    fn load_order(&self) -> String {
        self.modules.iter().map(|module| module.file_name() + "\n").collect()
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
    use std::process::{Command, Stdio};

    fn module(name: &str, data: &[u8]) -> BootModule {
        BootModule { name: name.into(), data: data.into() }
    }

    fn sample(modules: &[BootModule]) -> Vec<u8> {
        Initramfs { init: b"ELF", trust: b"t = 1\n", build_time: 1_700_000_000, modules }.build().unwrap()
    }

    #[test]
    fn gnu_cpio_lists_what_was_put_in() {
        let archive = sample(&[module("loop", b"L"), module("dm_mod", b"DM")]);
        let mut cpio = Command::new("bsdtar")
            .args(["-tvnf", "-", "--numeric-owner"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let console = text.lines().find(|line| line.ends_with(" dev/console")).unwrap();
        assert!(console.starts_with("crw-------") && console.contains("5,1"), "{console}");
        let init = text.lines().find(|line| line.ends_with(" init")).unwrap();
        assert!(init.starts_with("-rwxr-xr-x  1 0      0           3 Nov 14  2023"), "{init}");
        let parents = text.lines().position(|line| line.ends_with(" gap/modules")).unwrap();
        let child = text.lines().position(|line| line.ends_with(" gap/modules/dm_mod.ko")).unwrap();
        assert!(parents < child, "a directory stands before what lies in it");
    }

    #[test]
    fn the_order_file_keeps_the_order_of_loading() {
        let archive = sample(&[module("loop", b"L"), module("dm_mod", b"DM")]);
        let mut rest = archive.as_slice();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().name() == "gap/modules/order" {
                let mut text = String::new();
                io::Read::read_to_string(&mut reader, &mut text).unwrap();
                assert_eq!(text, "loop.ko\ndm_mod.ko\n");
                return;
            }
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn a_module_that_would_leave_its_directory_is_refused() {
        let modules = [module("../../init", b"evil")];
        let result = Initramfs { init: b"", trust: b"", build_time: 0, modules: &modules }.build();
        assert!(matches!(result, Err(InitramfsError::ModuleName(_))));
    }

    #[test]
    fn a_module_named_twice_is_refused() {
        let modules = [module("loop", b"a"), module("loop", b"b")];
        let result = Initramfs { init: b"", trust: b"", build_time: 0, modules: &modules }.build();
        assert!(matches!(result, Err(InitramfsError::Duplicate(name)) if name == "loop"));
    }

    #[test]
    fn a_date_past_2106_is_refused() {
        let result = Initramfs { init: b"", trust: b"", build_time: 1 << 32, modules: &[] }.build();
        assert!(matches!(result, Err(InitramfsError::Time(_))));
    }
}
