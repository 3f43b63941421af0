//! One file of a model, wherever it lies.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::PathBuf,
};

/// One file of a model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it lies.
    pub real: PathBuf,
    /// Its first byte in there, where that holds other things too, such as a layer that was built.
    pub within: Option<u64>,
    /// Its length in bytes.
    pub size: u64,
}

impl ModelFile {
    /// A file by itself.
    pub const fn alone(real: PathBuf, size: u64) -> Self {
        Self { real, within: None, size }
    }

    /// Whether it is on this machine in its full length.
    pub fn is_here(&self) -> bool {
        self.real.metadata().is_ok_and(|found| match self.within {
            None => found.len() == self.size,
            Some(start) => start.checked_add(self.size).is_some_and(|end| end <= found.len()),
        })
    }

    /// Opens it.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(&self) -> io::Result<ModelReader> {
        let file = File::open(&self.real)?;
        Ok(ModelReader { file, start: self.within.unwrap_or_default(), len: self.size, at: 0 })
    }
}

/// Reads a file of a model, and nothing of what lies around it.
#[derive(Debug)]
pub struct ModelReader {
    file: File,
    start: u64,
    len: u64,
    at: u64,
}

impl Read for ModelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(buf.get_mut(..left).unwrap_or_default(), self.start.saturating_add(self.at))?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for ModelReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_file_within_another_ends_where_it_ends() {
        let mut whole = tempfile::NamedTempFile::new().unwrap();
        whole.write_all(b"before|config|after").unwrap();
        let real = whole.path().to_owned();
        let file = ModelFile { real: real.clone(), within: Some(7), size: 6 };
        assert!(file.is_here());
        let mut reader = file.open().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "config");
        reader.seek(SeekFrom::End(-3)).unwrap();
        text.clear();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), reader.seek(SeekFrom::Current(-6)).unwrap()), ("fig", 0));
        assert!(reader.seek(SeekFrom::Current(-1)).is_err());
        reader.seek(SeekFrom::Start(40)).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
        assert!(!ModelFile { within: Some(14), ..file.clone() }.is_here());
        // By itself it must have exactly its length.
        assert!(!ModelFile::alone(real.clone(), 6).is_here() && ModelFile::alone(real.clone(), 19).is_here());
        fs::remove_file(real).unwrap();
        assert!(!file.is_here());
    }
}
