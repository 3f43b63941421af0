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
    let mut file = volume.root_dir().create_file(FILE_NAME)?;
    file.write_all(config.as_bytes())?;
    file.flush()?;
    drop(file);
    volume.unmount()?;
    Ok(bytes.into_inner())
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
