//! Files that a command makes for its user: there whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

/// How the names of temporary files begin; not as those of unfinished artifacts, which a build in the same directory removes.
const PREFIX: &str = ".gapimage-new-";

/// Writes a new file with these permission bits: temporary file beside it → fsync → link.
///
/// # Errors
/// What the system said; [`io::ErrorKind::AlreadyExists`] if something of this name is there, which stays as it is.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = written_beside(path, bytes, mode)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(directory_of(path))?.sync_all()
}

/// The same in the place of whatever has the name, which stays if anything fails.
///
/// # Errors
/// What the system said.
pub fn write_over(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = written_beside(path, bytes, mode)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn written_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(directory_of(path))?;
    file.write_all(bytes)?;
    // Set apart, as the umask may have taken bits away that readers need.
    fs::set_permissions(file.path(), Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_stays_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, b"first", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = write_new(&path, b"second", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_over(&path, b"second", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        assert!(write_new(&dir.path().join("link"), b"x", 0o600).is_err(), "a link that leads nowhere");
    }
}
