//! The volume that brings a site configuration to a machine: a small FAT16, as `mkfs.vfat` makes it.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gap_handover::site::{FILE_NAME, VOLUME_LABEL};
use std::io::{self, Cursor, Write};

/// Length of the volume in bytes.
const LEN: usize = 16 << 20;

/// A volume whose only file is this configuration.
///
/// # Errors
/// What the file system said when the text does not fit.
pub fn site_volume(text: &str) -> io::Result<Vec<u8>> {
    let mut label = [b' '; 11];
    label.iter_mut().zip(VOLUME_LABEL.bytes()).for_each(|(to, from)| *to = from);
    let mut volume = Cursor::new(vec![0; LEN]);
    fatfs::format_volume(&mut volume, FormatVolumeOptions::new().fat_type(FatType::Fat16).volume_label(label))?;
    let files = FileSystem::new(&mut volume, FsOptions::new().update_accessed_date(false))?;
    let mut file = files.root_dir().create_file(FILE_NAME)?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    drop(file);
    files.unmount()?;
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn other_tools_read_label_and_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("volume");
        std::fs::write(&path, site_volume("hostname = 'x'\n").unwrap()).unwrap();
        let told = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg(&path).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        told("/sbin/fsck.vfat", &["-n"]);
        let image = path.to_str().unwrap();
        let typed = Command::new("mtype").args(["-i", image, "::/site.toml"]).output().unwrap();
        assert_eq!(typed.stdout, b"hostname = 'x'\n");
        let label = Command::new("mlabel").args(["-s", "-i", image, "::"]).output().unwrap();
        assert!(String::from_utf8_lossy(&label.stdout).contains("GAPSITE"), "{label:?}");
    }
}
