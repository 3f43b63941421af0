//! The EFI system partition: a FAT16 file system with 4096-byte sectors that holds the boot image
//! where firmware looks for it on any medium (UEFI 2.10, 3.5.1.1; Microsoft "FAT32 File System
//! Specification" for FAT16).
//!
//! Firmware reads FAT by the sector size that the file system names, so sectors of 4096 bytes work
//! on disks with 512-byte and with 4096-byte blocks alike.

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use std::io::{self, Read, Seek, Write};

/// Sector size of the file system, bytes.
pub const SECTOR: u64 = 4096;
/// Where firmware for x86-64 finds the boot image.
pub const BOOT_IMAGE: [&str; 3] = ["EFI", "BOOT", "BOOTX64.EFI"];
/// Entries of the root directory: exactly one sector.
const ROOT_ENTRIES: u16 = 128;
/// Fewest and most clusters that make a FAT a FAT16, sixteen away from the limits of 4085 and 65525,
/// because readers disagree on these by a few.
const CLUSTERS: std::ops::RangeInclusive<u64> = 4101..=65509;
/// Clusters for the directories `EFI` and `EFI/BOOT`.
const DIRECTORY_CLUSTERS: u64 = 2;
/// Largest cluster that every reader takes, bytes.
const MAX_CLUSTER: u64 = 32 << 10;

/// Why a partition cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The image does not fit.
    #[error("the boot image has {0} bytes; an EFI system partition holds at most about 2 GiB")]
    TooLarge(u64),
    /// The file system could not be written.
    #[error("cannot write the EFI system partition: {0}")]
    Io(#[from] io::Error),
}

/// The measures of a partition, known from the length of the boot image alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspPlan {
    sectors: u64,
    cluster: u64,
}

impl EspPlan {
    /// Plans a partition for a boot image of `image_len` bytes.
    ///
    /// # Errors
    /// [`EspError::TooLarge`] when no FAT16 can hold it.
    pub fn new(image_len: u64) -> Result<Self, EspError> {
        let mut cluster = SECTOR;
        while cluster <= MAX_CLUSTER {
            let clusters = (image_len.div_ceil(cluster) + DIRECTORY_CLUSTERS).max(*CLUSTERS.start());
            if CLUSTERS.contains(&clusters) {
                // Boot sector, two tables of 16-bit entries (two of them reserved), root directory.
                let table = ((clusters + 2) * 2).div_ceil(SECTOR);
                return Ok(Self { sectors: 1 + 2 * table + 1 + clusters * (cluster / SECTOR), cluster });
            }
            cluster *= 2;
        }
        Err(EspError::TooLarge(image_len))
    }

    /// Length of the partition in bytes, a multiple of [`SECTOR`].
    pub fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// Writes the partition into `sink`, which reads as zeros from its start for [`EspPlan::size`]
    /// bytes (a new file of that length, or zeroed memory). `volume_id` is the serial number of the
    /// volume. The same arguments give the same bytes.
    ///
    /// # Errors
    /// [`EspError::Io`] when the sink fails, or `image` is longer than was planned for.
    pub fn write(&self, sink: &mut (impl Read + Write + Seek), image: &[u8], volume_id: u32) -> Result<(), EspError> {
        sink.rewind()?;
        let options = FormatVolumeOptions::new()
            .bytes_per_sector(SECTOR as u16)
            .bytes_per_cluster(self.cluster as u32)
            .total_sectors(self.sectors as u32)
            .fat_type(FatType::Fat16)
            .max_root_dir_entries(ROOT_ENTRIES)
            .volume_id(volume_id)
            .volume_label(*b"GAPBOOT    ");
        fatfs::format_volume(&mut *sink, options)?;
        let volume = FileSystem::new(sink, FsOptions::new().update_accessed_date(false).time_provider(&EPOCH))?;
        let [efi, boot, name] = BOOT_IMAGE;
        let directory = volume.root_dir().create_dir(efi)?.create_dir(boot)?;
        let mut file = directory.create_file(name)?;
        file.write_all(image)?;
        file.flush()?;
        drop(file);
        drop(directory);
        volume.unmount()?;
        Ok(())
    }
}

/// Every file is dated with the first moment that FAT knows: the date of a build is no content.
#[derive(Debug)]
pub(super) struct Epoch;

pub(super) static EPOCH: Epoch = Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Cursor, process::Command};

    fn build(image: &[u8]) -> Vec<u8> {
        let plan = EspPlan::new(image.len() as u64).unwrap();
        let mut volume = Cursor::new(vec![0; plan.size() as usize]);
        plan.write(&mut volume, image, 0x4741_5042).unwrap();
        assert_eq!(volume.get_ref().len() as u64, plan.size());
        volume.into_inner()
    }

    #[test]
    fn fsck_finds_no_fault_and_mtools_reads_the_image_back() {
        let image: Vec<u8> = (0..300_001_u32).map(|number| (number / 7) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("esp");
        std::fs::write(&path, build(&image)).unwrap();
        let fsck = Command::new("/usr/sbin/fsck.vfat").arg("-nv").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&fsck.stdout);
        assert!(fsck.status.success(), "{text}");
        assert!(text.contains("FATs, 16 bit entries") && text.contains("4096 bytes per logical sector"), "{text}");
        let mtype = Command::new("mtype").arg("-i").arg(&path).arg("::/EFI/BOOT/BOOTX64.EFI").output().unwrap();
        assert!(mtype.stdout == image);
    }

    #[test]
    fn the_same_image_gives_the_same_bytes() {
        assert!(build(b"MZ") == build(b"MZ"));
    }

    #[test]
    fn a_large_image_gets_larger_clusters() {
        assert_eq!(EspPlan::new(200 << 20).unwrap().cluster, 4096);
        assert_eq!(EspPlan::new(300 << 20).unwrap().cluster, 8192);
        assert!(matches!(EspPlan::new(3 << 30), Err(EspError::TooLarge(_))));
    }

    #[test]
    fn the_plan_is_exact_at_every_size() {
        for clusters in [4098, 4099, 4100, 8188, 8189, 8190] {
            for len in [clusters * SECTOR - 1, clusters * SECTOR, clusters * SECTOR + 1] {
                build(&vec![1; len as usize]);
            }
        }
    }

    #[test]
    fn an_image_beyond_the_plan_is_refused() {
        let plan = EspPlan::new(0).unwrap();
        let mut volume = Cursor::new(vec![0; plan.size() as usize]);
        let image = vec![1; plan.size() as usize];
        assert!(matches!(plan.write(&mut volume, &image, 1), Err(EspError::Io(_))));
    }
}
