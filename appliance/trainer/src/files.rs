//! Files and directories that appear whole or not at all.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What directories and the last blocks of their files take beside what is written, in bytes: enough for what is grown here.
pub const ROUNDING: u64 = 64 << 10;

/// How the name of a directory ends that is being filled.
const PART: &str = ".part";

/// Puts a file in another's place once its bytes are on the disk.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(parent)
}

/// Waits until a directory's entries are on the disk.
///
/// # Errors
/// What the system says.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Takes away what a killed program left half filled in a directory.
///
/// # Errors
/// What the system says.
pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(PART) && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A directory that is filled under another name, and appears when it is complete.
#[derive(Debug)]
pub struct Growing {
    made: PathBuf,
    place: PathBuf,
}

impl Growing {
    /// Begins one. What an earlier attempt left is taken away.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(place: &Path) -> io::Result<Self> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let made = place.with_file_name(format!(".{name}{PART}"));
        if made.exists() {
            fs::remove_dir_all(&made)?;
        }
        fs::create_dir_all(&made)?;
        Ok(Self { made, place: place.to_owned() })
    }

    /// Begins a file in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self, name: &str) -> io::Result<Hashed> {
        Ok(Hashed { file: File::create(self.made.join(name))?, hash: Sha256::new() })
    }

    /// Writes a file into it; its digest.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let mut file = self.create(name)?;
        file.write_all(bytes)?;
        file.finish()
    }

    /// Puts it in its place; one that is there is replaced.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> io::Result<()> {
        sync(&self.made)?;
        if self.place.exists() {
            fs::remove_dir_all(&self.place)?;
        }
        fs::rename(&self.made, &self.place)?;
        sync(self.place.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // After `finish` there is nothing to take away.
        let _ = fs::remove_dir_all(&self.made);
    }
}

/// A file that is hashed while it is written.
#[derive(Debug)]
pub struct Hashed {
    file: File,
    hash: Sha256,
}

impl Hashed {
    /// Waits until it is on the disk; its digest.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> io::Result<String> {
        self.file.sync_all()?;
        Ok(hex::encode(self.hash.finalize()))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// SHA-256 of bytes, in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
