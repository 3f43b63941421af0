//! The volume label of a FAT file system (Microsoft's FAT specification 1.03), read without mounting it.

use gap_format::ReadAt;
use std::io;

/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// Attribute of the entry that carries the label, and the bits that make an entry part of a long name instead.
const VOLUME_ID: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
/// Entries of the root directory that are looked at.
const MAX_ENTRIES: usize = 512;

/// The label in the root directory, where systems that rename a volume put it; else the one in the boot sector.
///
/// # Errors
/// What the kernel answered, also when the boot sector points past the end of the device.
pub fn label(source: &dyn ReadAt) -> io::Result<Option<String>> {
    let mut boot = [0; 512];
    source.read_exact_at(&mut boot, 0)?;
    let Some(geometry) = Geometry::read(&boot) else { return Ok(None) };
    let mut directory = vec![0; geometry.root_len.min(MAX_ENTRIES * ENTRY)];
    source.read_exact_at(&mut directory, geometry.root_start)?;
    let in_root = directory
        .chunks_exact(ENTRY)
        .take_while(|entry| entry.first() != Some(&0))
        .filter(|entry| entry.first() != Some(&0xe5))
        .find(|entry| entry.get(11).is_some_and(|flags| flags & LONG_NAME == VOLUME_ID))
        .and_then(|entry| entry.get(..11));
    let in_boot_sector = boot.get(geometry.label_at..geometry.label_at + 11);
    Ok(in_root.or(in_boot_sector).map(|name| String::from_utf8_lossy(name).trim_end().to_owned()))
}

/// Where the root directory and the boot sector's label are.
struct Geometry {
    root_start: u64,
    root_len: usize,
    label_at: usize,
}

impl Geometry {
    /// Reads the BIOS parameter block; `None` where it makes no sense.
    fn read(boot: &[u8; 512]) -> Option<Self> {
        let byte = |at: usize| boot.get(at).map(|value| u64::from(*value));
        let short = |at: usize| Some(byte(at)? | byte(at + 1)? << 8);
        let long = |at: usize| Some(short(at)? | short(at + 2)? << 16);
        let sector = short(11)?;
        let cluster = byte(13)? * sector;
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) || cluster == 0 {
            return None;
        }
        let (reserved, tables, root_entries) = (short(14)?, byte(16)?, short(17)?);
        if root_entries > 0 {
            let root_start = (reserved + tables * short(22)?) * sector;
            return Some(Self { root_start, root_len: usize::try_from(root_entries).ok()? * ENTRY, label_at: 43 });
        }
        // FAT32: the root directory is a chain of clusters, of which the first one is looked at.
        let data = (reserved + tables * long(36)?) * sector;
        let first = long(44)?.checked_sub(2)?;
        Some(Self { root_start: data + first * cluster, root_len: usize::try_from(cluster).ok()?, label_at: 71 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, process::Command};

    fn volume(arguments: &[&str], relabel: Option<&str>) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(40 << 20).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).arg(file.path()).output();
            assert!(status.unwrap().status.success(), "{program}");
        };
        run("/usr/sbin/mkfs.vfat", arguments);
        if let Some(label) = relabel {
            let image = file.path().to_str().unwrap().to_owned();
            let output = Command::new("mlabel").args(["-i", &image, &format!("::{label}")]).output().unwrap();
            assert!(output.status.success());
        }
        label(&File::open(file.path()).unwrap()).unwrap()
    }

    #[test]
    fn labels_of_fat16_and_fat32_are_read() {
        assert_eq!(volume(&["-F", "16", "-n", "GAPSITE"], None).as_deref(), Some("GAPSITE"));
        assert_eq!(volume(&["-F", "32", "-n", "GAPSITE"], None).as_deref(), Some("GAPSITE"));
        assert_eq!(volume(&["-F", "32"], None).as_deref(), Some("NO NAME"));
    }

    #[test]
    fn a_renamed_volume_has_its_new_label() {
        assert_eq!(volume(&["-F", "32", "-n", "OLD"], Some("GAPSITE")).as_deref(), Some("GAPSITE"));
    }

    #[test]
    fn nonsense_has_no_label_and_reads_nothing_far_away() {
        assert_eq!(label(&vec![0; 512]).unwrap(), None);
        assert!(label(&vec![0xff; 512]).is_ok_and(|label| label.is_none()));
        let mut far = vec![0; 512];
        far[11..14].copy_from_slice(&[0, 2, 1]);
        far[36..40].fill(0xff);
        far[44..48].fill(0xff);
        assert!(label(&far).is_err());
    }
}
