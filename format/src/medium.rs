//! Opening what an artifact is on: a file, a raw disk, or a pipe.

use crate::verify::Extent;
use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

/// An opened medium.
#[derive(Debug)]
pub enum Medium {
    /// Can be read at any offset; for [`verify`](crate::verify::verify).
    Seekable(File, Extent),
    /// Can be read once, in order; for [`verify_stream`](crate::verify::verify_stream).
    Pipe(File),
}

impl Medium {
    /// Opens a file, a block device or a named pipe for reading.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::InvalidInput`] for a directory, socket or character device.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if kind.is_file() {
            return Ok(Self::Seekable(file, Extent::File(metadata.len())));
        }
        if kind.is_block_device() {
            let len = file.seek(SeekFrom::End(0))?;
            return Ok(Self::Seekable(file, Extent::Disk(len)));
        }
        if kind.is_fifo() {
            return Ok(Self::Pipe(file));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a disk nor a pipe"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_length_and_a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, [0; 7]).unwrap();
        assert!(matches!(Medium::open(&path).unwrap(), Medium::Seekable(_, Extent::File(7))));
        assert_eq!(Medium::open(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
