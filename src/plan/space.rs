//! How much space a build needs and how much there is, known before anything is written.

use rustix::fs::statvfs;
use serde::Serialize;
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Space that stays free for what cannot be foreseen: directories, temporary files of other programs.
const RESERVE: u64 = 64 << 20;

/// Space on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Space {
    /// A directory on it.
    pub path: PathBuf,
    /// Bytes that the build will write there at most.
    pub needed: u64,
    /// Bytes that are free for this user.
    pub free: u64,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough space: the build needs up to {needed} bytes on the file system of `{}`, and {free} are free; free some, \
     or choose another place with -o or --store", path.display()
)]
pub struct NoSpace {
    path: PathBuf,
    needed: u64,
    free: u64,
}

/// Needs by directory, added up for directories of one file system.
///
/// # Errors
/// What the system said when asked about a directory.
pub fn measure(needs: &[(&Path, u64)]) -> io::Result<Vec<Space>> {
    let mut spaces: Vec<(u64, Space)> = Vec::new();
    for &(path, needed) in needs {
        let existing = nearest_existing(path);
        let device = existing.metadata()?.dev();
        let stat = statvfs(existing)?;
        match spaces.iter_mut().find(|(other, _)| *other == device) {
            Some((_, space)) => space.needed = space.needed.saturating_add(needed),
            None => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                spaces.push((device, Space { path: existing.to_owned(), needed, free }));
            }
        }
    }
    Ok(spaces.into_iter().map(|(_, space)| space).collect())
}

/// Refuses what cannot fit.
///
/// # Errors
/// [`NoSpace`] for the first file system that is too small.
pub fn check(spaces: &[Space]) -> Result<(), NoSpace> {
    match spaces.iter().find(|space| space.needed > 0 && space.needed.saturating_add(RESERVE) > space.free) {
        Some(space) => Err(NoSpace { path: space.path.clone(), needed: space.needed, free: space.free }),
        None => Ok(()),
    }
}

fn nearest_existing(path: &Path) -> &Path {
    let found = path.ancestors().find(|ancestor| !ancestor.as_os_str().is_empty() && ancestor.exists());
    found.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_on_one_file_system_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a/b/c"), dir.path().to_owned());
        let spaces = measure(&[(&a, 1 << 20), (&b, 2 << 20)]).unwrap();
        assert_eq!(spaces.len(), 1);
        assert_eq!(spaces[0].needed, 3 << 20);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let space = Space { path: "/x".into(), needed: 10, free: 5 };
        let said = check(&[space]).unwrap_err().to_string();
        assert!(said.contains("10 bytes") && said.contains("5 are free"), "{said}");
        assert!(check(&[Space { path: "/x".into(), needed: 0, free: 0 }]).is_ok());
    }
}
