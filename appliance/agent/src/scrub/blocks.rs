//! A device that is read past the page cache.

use gap_format::ReadAt;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Alignment that direct reads need of memory, offset and length, in bytes. No block device asks for more.
const ALIGN: usize = 4096;

/// A block device or file opened for direct reads, or for ordinary ones where it cannot do direct ones.
#[derive(Debug)]
pub struct DirectFile {
    direct: Option<File>,
    buffered: File,
    bounce: Mutex<Vec<u8>>,
}

impl DirectFile {
    /// Opens it.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let buffered = File::open(path)?;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(Self { direct, buffered, bounce: Mutex::default() })
    }

    fn read_direct(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = buf.len().saturating_add(ALIGN);
        if bounce.len() < needed {
            bounce.resize(needed, 0);
        }
        let start = bounce.as_ptr().align_offset(ALIGN);
        let aligned = start.checked_add(buf.len()).and_then(|end| bounce.get_mut(start..end));
        let aligned = aligned.ok_or(io::ErrorKind::OutOfMemory)?;
        FileExt::read_exact_at(file, aligned, offset)?;
        buf.copy_from_slice(aligned);
        Ok(())
    }
}

impl ReadAt for DirectFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let is_aligned = buf.len().is_multiple_of(ALIGN) && offset.is_multiple_of(4096);
        match &self.direct {
            Some(file) if is_aligned => self.read_direct(file, buf, offset),
            _ => FileExt::read_exact_at(&self.buffered, buf, offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("device");
        let bytes: Vec<u8> = (0_u32..20_480).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = DirectFile::open(&path).unwrap();
        for (offset, length) in [(0, 4096), (4096, 12_288), (100, 50)] {
            let mut buf = vec![0; length];
            file.read_exact_at(&mut buf, offset).unwrap();
            assert_eq!(buf, bytes[usize::try_from(offset).unwrap()..][..length]);
        }
        assert!(file.read_exact_at(&mut [0; 4096], 20_480).is_err());
    }
}
