//! The directory that stands for `/`, and bounded reading below it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The machine's root directory: `/`, or a made-up tree in tests.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The tree at `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The place of an absolute or relative `path` inside of the root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when it is longer; otherwise what the system said.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.at(path))?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The first line of a small file of the kernel (`/proc`, `/sys`), without surrounding blanks; `None` when it
    /// cannot be read or is empty.
    pub fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.read(path, 4096).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
    }

    /// The names in a directory, sorted; empty when it cannot be read. At most `limit` are returned.
    pub fn names(&self, path: impl AsRef<Path>, limit: usize) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).take(limit).collect();
        names.sort_unstable();
        names
    }

    /// The last component of what a symbolic link points to.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_inside_of_the_root() {
        assert_eq!(Root::new("/x").at("/run/gap"), Path::new("/x/run/gap"));
        assert_eq!(Root::new("/").at("run/gap"), Path::new("/run/gap"));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x"), "12345").unwrap();
        let root = Root::new(directory.path());
        assert_eq!(root.read("x", 5).unwrap(), b"12345");
        assert_eq!(root.read("x", 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
