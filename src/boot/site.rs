//! The volume that carries a site configuration: a small FAT file system labelled `GAPSITE`, to be written to a stick, a
//! small partition or a virtual disk.

use super::esp::{EPOCH, SECTOR};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gap_format::Digest;
use gap_handover::site::{FILE_NAME, VOLUME_LABEL};
use std::io::{self, Cursor, Write};

/// Length of the volume in bytes: the longest configuration with room to spare, in a file system that every system reads.
pub const VOLUME_LEN: u64 = 1 << 20;
/// Length of a label of FAT, filled up with spaces.
const LABEL_LEN: usize = 11;
/// The name in eight and three letters that each file has besides its long one.
const SHORT_NAME: &[u8; 11] = b"SITE    CNF";
/// The same as the writer of the file system takes it.
const SHORT_PATH: &str = "SITE.CNF";
/// Length of an entry of a directory.
const ENTRY: usize = 32;

/// The bytes of a volume with this configuration. The same configuration gives the same bytes.
///
/// # Errors
/// What the file system's writer said; the configuration is longer than the volume, for example.
pub fn volume(config: &str) -> io::Result<Vec<u8>> {
    let mut label = [b' '; LABEL_LEN];
    label.iter_mut().zip(VOLUME_LABEL.bytes()).for_each(|(place, byte)| *place = byte);
    // The serial number tells one configuration from another where a system caches volumes by it.
    let [a, b, c, d, ..] = *Digest::of(config.as_bytes()).as_bytes();
    let options = FormatVolumeOptions::new()
        .bytes_per_sector(SECTOR as u16)
        .bytes_per_cluster(SECTOR as u32)
        .total_sectors((VOLUME_LEN / SECTOR) as u32)
        .fat_type(FatType::Fat12)
        .volume_id(u32::from_le_bytes([a, b, c, d]))
        .volume_label(label);
    let mut bytes = Cursor::new(vec![0; VOLUME_LEN as usize]);
    fatfs::format_volume(&mut bytes, options)?;
    let volume = FileSystem::new(&mut bytes, FsOptions::new().update_accessed_date(false).time_provider(&EPOCH))?;
    let mut file = volume.root_dir().create_file(SHORT_PATH)?;
    file.write_all(config.as_bytes())?;
    file.flush()?;
    drop(file);
    volume.unmount()?;
    let mut bytes = bytes.into_inner();
    name_in_full(&mut bytes).ok_or_else(|| io::Error::other("the file is not in the directory"))?;
    Ok(bytes)
}

/// Puts the long name before the only file's entry. The writer of the file system can do that as well, but then it gives
/// long names to the entries `.` and `..` of directories too, which is wrong, and the boot partition has directories.
fn name_in_full(volume: &mut [u8]) -> Option<()> {
    let at = volume.windows(SHORT_NAME.len()).position(|bytes| bytes == SHORT_NAME)?;
    let entries = volume.get_mut(at..at + 2 * ENTRY)?;
    // The entry after the last is all zeros, and so is the one behind it, which ends the directory from now on.
    entries.copy_within(..ENTRY, ENTRY);
    entries.get_mut(..ENTRY)?.copy_from_slice(&long_name()?);
    Some(())
}

/// The entry with the long name (Microsoft's FAT specification 1.03, section 7): thirteen letters are enough for it.
fn long_name() -> Option<[u8; ENTRY]> {
    let mut letters = [0xffff_u16; 13];
    // A zero ends a name that is shorter than the entry.
    FILE_NAME.encode_utf16().chain([0]).enumerate().try_for_each(|(index, letter)| {
        *letters.get_mut(index)? = letter;
        Some(())
    })?;
    let check = SHORT_NAME.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut entry = [0; ENTRY];
    // The last part of a name, and the first.
    *entry.get_mut(0)? = 0x41;
    *entry.get_mut(11)? = 0x0f;
    *entry.get_mut(13)? = check;
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    for (place, letter) in places.zip(letters) {
        entry.get_mut(place..place + 2)?.copy_from_slice(&letter.to_le_bytes());
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn other_systems_read_the_configuration_back() {
        let config = "hostname = \"rack4\"\n";
        let bytes = volume(config).unwrap();
        assert_eq!(bytes, volume(config).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site");
        std::fs::write(&path, &bytes).unwrap();
        let fsck = Command::new("/usr/sbin/fsck.vfat").arg("-nv").arg(&path).output().unwrap();
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
        let read = Command::new("mtype").arg("-i").arg(&path).arg("::/site.toml").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&read.stdout), config);
        let label = Command::new("/usr/sbin/blkid").args(["-o", "value", "-s", "LABEL"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&label.stdout).trim(), VOLUME_LABEL);
    }

    #[test]
    fn the_longest_configuration_fits_and_no_longer_one() {
        assert!(volume(&"x".repeat(gap_handover::site::MAX_LEN)).is_ok());
        assert!(volume(&"x".repeat(VOLUME_LEN as usize)).is_err());
    }
}
