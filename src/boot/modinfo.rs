//! What a kernel module says about itself: the `.modinfo` section of its ELF file, a run of
//! NUL-terminated `key=value` texts (Linux `include/linux/moduleparam.h`).

use liblzma::read::XzDecoder;
use object::{Object, ObjectSection};
use std::io::{self, Read};

/// Largest module accepted, decompressed. The largest ones in use have about 100 MiB.
pub const MAX_LEN: u64 = 512 << 20;
/// Largest `.modinfo` accepted. The longest alias lists in use have about 100 KiB.
const MAX_MODINFO: u64 = 4 << 20;

/// How a module's file is compressed, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.ko`
    None,
    /// `.ko.xz`
    Xz,
    /// `.ko.zst`
    Zstd,
    /// `.ko.gz`
    Gzip,
}

/// Why a module cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ModinfoError {
    /// Decompression failed.
    #[error("cannot decompress it: {0}")]
    Decompress(#[from] io::Error),
    /// It would grow beyond [`MAX_LEN`].
    #[error("it decompresses to more than {MAX_LEN} bytes")]
    TooLarge,
    /// It is not an ELF file with a `.modinfo` section of a sane length.
    #[error("it is not a kernel module: {0}")]
    NotAModule(String),
}

/// Splits a module's file name into the module's name, as the kernel spells it, and its compression.
/// `None` when the name is not that of a module.
pub fn split_file_name(file_name: &str) -> Option<(String, Compression)> {
    let endings = [
        (".ko", Compression::None),
        (".ko.xz", Compression::Xz),
        (".ko.zst", Compression::Zstd),
        (".ko.gz", Compression::Gzip),
    ];
    endings.into_iter().find_map(|(ending, compression)| {
        let stem = file_name.strip_suffix(ending).filter(|stem| !stem.is_empty())?;
        Some((canonical(stem), compression))
    })
}

/// The kernel's spelling of a module name: it has underscores where files may have hyphens.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Decompresses a module's file, in at most [`MAX_LEN`] bytes.
///
/// # Errors
/// [`ModinfoError`] when the data is damaged or too large.
pub fn decompress(file: Vec<u8>, compression: Compression) -> Result<Vec<u8>, ModinfoError> {
    let mut data = Vec::new();
    match compression {
        Compression::None => data = file,
        Compression::Xz => read_bounded(XzDecoder::new(file.as_slice()), &mut data)?,
        Compression::Zstd => read_bounded(zstd::Decoder::new(file.as_slice())?, &mut data)?,
        Compression::Gzip => read_bounded(flate2::read::GzDecoder::new(file.as_slice()), &mut data)?,
    }
    if data.len() as u64 > MAX_LEN { Err(ModinfoError::TooLarge) } else { Ok(data) }
}

fn read_bounded(reader: impl Read, data: &mut Vec<u8>) -> io::Result<()> {
    reader.take(MAX_LEN + 1).read_to_end(data).map(drop)
}

/// What one module says about itself, each list in the order of the section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modinfo {
    /// Modules whose symbols it uses, as the kernel spells them.
    pub depends: Vec<String>,
    /// Patterns of devices and names that it serves.
    pub aliases: Vec<String>,
    /// Soft dependencies, in modprobe's notation (`pre: a b post: c`).
    pub softdeps: Vec<String>,
}

impl Modinfo {
    /// Reads the section of a decompressed module.
    ///
    /// # Errors
    /// [`ModinfoError::NotAModule`] when there is none.
    pub fn parse(module: &[u8]) -> Result<Self, ModinfoError> {
        let not_a_module = |reason: object::Error| ModinfoError::NotAModule(reason.to_string());
        let elf = object::File::parse(module).map_err(not_a_module)?;
        let section = elf
            .section_by_name(".modinfo")
            .filter(|section| section.size() <= MAX_MODINFO)
            .ok_or_else(|| ModinfoError::NotAModule("it has no `.modinfo` section of a sane length".into()))?;
        Ok(Self::from_section(section.data().map_err(not_a_module)?))
    }

    fn from_section(section: &[u8]) -> Self {
        let mut info = Self::default();
        for text in section.split(|&byte| byte == 0).filter_map(|text| std::str::from_utf8(text).ok()) {
            match text.split_once('=') {
                Some(("depends", names)) => {
                    info.depends.extend(names.split(',').filter(|name| !name.is_empty()).map(canonical));
                }
                Some(("alias", pattern)) => info.aliases.push(pattern.to_owned()),
                Some(("softdep", dependencies)) => info.softdeps.push(dependencies.to_owned()),
                _ => {}
            }
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_gives_the_kernels_spelling() {
        assert_eq!(split_file_name("dm-verity.ko.xz"), Some(("dm_verity".into(), Compression::Xz)));
        assert_eq!(split_file_name("loop.ko"), Some(("loop".into(), Compression::None)));
        assert_eq!(split_file_name("modules.dep"), None);
        assert_eq!(split_file_name(".ko"), None);
    }

    #[test]
    fn the_section_yields_what_loading_needs() {
        let info = Modinfo::from_section(
            b"license=GPL\0softdep=pre: crypto-crc32c\0alias=fs-ext4\0alias=ext3\0\0depends=jbd2,mb-cache\0name=ext4\0",
        );
        assert_eq!(info.depends, ["jbd2", "mb_cache"]);
        assert_eq!(info.aliases, ["fs-ext4", "ext3"]);
        assert_eq!(info.softdeps, ["pre: crypto-crc32c"]);
    }

    #[test]
    fn no_dependencies_are_no_names() {
        assert_eq!(Modinfo::from_section(b"depends=\0").depends, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_elf_is_refused() {
        assert!(matches!(Modinfo::parse(b"#!/bin/sh\n"), Err(ModinfoError::NotAModule(_))));
    }

    #[test]
    fn damaged_compression_is_refused() {
        let whole = zstd::encode_all(&[7_u8; 5000][..], 1).unwrap();
        assert_eq!(decompress(whole.clone(), Compression::Zstd).unwrap(), [7; 5000]);
        for compression in [Compression::Xz, Compression::Zstd, Compression::Gzip] {
            let cut = whole[..whole.len() - 3].to_vec();
            assert!(matches!(decompress(cut, compression), Err(ModinfoError::Decompress(_))));
        }
    }
}
