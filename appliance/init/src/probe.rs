//! What lies on a block device, judged by magic numbers only. Nothing found here is believed; it only decides what is
//! looked at closely.

use gap_format::ReadAt;
use std::io;

/// What a device seems to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A release, from the device's first byte on.
    Artifact,
    /// A file system that may hold a release as a file; the name is the kernel's.
    FileSystem(&'static str),
    /// Nothing that matters here.
    Other,
}

/// A magic number, where it lies and what it means.
const FILE_SYSTEMS: [(usize, &[u8], &str); 7] = [
    (0x438, &[0x53, 0xef], "ext4"),
    (0, b"XFSB", "xfs"),
    (3, b"EXFAT   ", "exfat"),
    (32_769, b"CD001", "iso9660"),
    (54, b"FAT12   ", "vfat"),
    (54, b"FAT16   ", "vfat"),
    (82, b"FAT32   ", "vfat"),
];
/// Bytes that are looked at: up to the end of an ISO 9660 volume descriptor's magic.
const HEAD: u64 = 36 * 1024;

/// Looks at the head of a device that is `len` bytes long.
///
/// # Errors
/// What the kernel answered when the head cannot be read.
pub fn identify(source: &dyn ReadAt, len: u64) -> io::Result<Content> {
    let mut head = vec![0; usize::try_from(len.min(HEAD)).unwrap_or(0)];
    source.read_exact_at(&mut head, 0)?;
    let holds = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    // First member of a release: the tar header of `.gpt`. It comes first because the file system of the release's own
    // boot partition must not hide it.
    if holds(0, b".gpt\0") && holds(257, b"ustar\0") {
        return Ok(Content::Artifact);
    }
    let known = FILE_SYSTEMS.iter().find(|(at, magic, _)| holds(*at, magic));
    Ok(known.map_or(Content::Other, |(_, _, name)| Content::FileSystem(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(parts: &[(usize, &[u8])], len: usize) -> Content {
        let mut device = vec![0; len];
        for (at, bytes) in parts {
            device[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        identify(&device, device.len() as u64).unwrap()
    }

    #[test]
    fn a_release_is_known_by_its_first_tar_header() {
        assert_eq!(with(&[(0, b".gpt\0"), (257, b"ustar\0")], 1024), Content::Artifact);
        assert_eq!(with(&[(0, b".gpt\0")], 1024), Content::Other);
    }

    #[test]
    fn file_systems_are_known_by_their_magic_numbers() {
        assert_eq!(with(&[(0x438, &[0x53, 0xef])], 65536), Content::FileSystem("ext4"));
        assert_eq!(with(&[(0, b"XFSB")], 65536), Content::FileSystem("xfs"));
        assert_eq!(with(&[(82, b"FAT32   ")], 65536), Content::FileSystem("vfat"));
        assert_eq!(with(&[(32_769, b"CD001")], 65536), Content::FileSystem("iso9660"));
    }

    #[test]
    fn a_device_shorter_than_any_magic_is_nothing() {
        assert_eq!(with(&[], 0), Content::Other);
        assert_eq!(with(&[], 3), Content::Other);
    }
}
