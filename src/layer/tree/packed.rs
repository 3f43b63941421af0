//! Files that are unpacked when they are read.

use super::Content;
use crate::{layer::sink::Sink, source::debian::spool::Spool};
use std::{
    fmt::Debug,
    io::{self, Read},
    sync::{Mutex, PoisonError},
};

/// Unpacks one file.
pub trait Unpack: Debug + Send + Sync {
    /// The file from its first byte to its last. Whatever vouches for it is compared at its end: what was read before that
    /// may still be wrong.
    ///
    /// # Errors
    /// What the system said; the reader also fails with [`io::ErrorKind::InvalidData`] at the end of what is not as it
    /// should be.
    fn reader(&self) -> io::Result<Box<dyn Read + '_>>;

    /// The same for who compares all that is read with what it was before: nothing else vouches for it.
    ///
    /// # Errors
    /// What the system said.
    fn unchecked(&self) -> io::Result<Box<dyn Read + '_>>;
}

/// Who compares the contents of files that are streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Each is compared with what vouches for it on the way.
    Each,
    /// The receiver compares the whole with what it was before.
    Whole,
}

/// A file that lies packed in another. Who reads it once, from its first byte to its last, gets it as it is unpacked; for
/// any other use it is unpacked into a spool first, once, and read from there from then on.
#[derive(Debug)]
pub struct Packed {
    source: Box<dyn Unpack>,
    len: u64,
    spool: Spool,
    /// Its place in the spool.
    unpacked: Mutex<Option<Content>>,
}

impl Packed {
    /// A file of `len` bytes, unpacked into `spool` where need be.
    pub fn new(source: Box<dyn Unpack>, len: u64, spool: Spool) -> Self {
        Self { source, len, spool, unpacked: Mutex::default() }
    }

    /// Its length when it is unpacked, in bytes.
    pub const fn size(&self) -> u64 {
        self.len
    }

    /// Reads it from its first byte to its last.
    ///
    /// # Errors
    /// Those of [`Unpack::reader`].
    pub fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        self.begin(Compared::Each)
    }

    fn begin(&self, compared: Compared) -> io::Result<Box<dyn Read + '_>> {
        let unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (unpacked, compared) {
            (Some(content), _) => Ok(Box::new(content.reader_of(0..content.len())?)),
            (None, Compared::Each) => self.source.reader(),
            (None, Compared::Whole) => self.source.unchecked(),
        }
    }

    /// Appends it to `sink`.
    ///
    /// # Errors
    /// Those of [`Unpack::reader`] and of the sink; [`io::ErrorKind::UnexpectedEof`] if it is shorter than it should be.
    pub fn stream(&self, sink: &mut dyn Sink, compared: Compared) -> io::Result<()> {
        let mut reader = self.begin(compared)?;
        let mut left = self.len;
        while left > 0 {
            let room = sink.room()?;
            let count = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match reader.read(room.get_mut(..count).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            sink.advance(count);
            left -= count as u64;
        }
        expect_end(&mut reader)
    }

    /// The file where it lies unpacked.
    ///
    /// # Errors
    /// As for [`Packed::stream`].
    pub fn unpacked(&self) -> io::Result<Content> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = &*unpacked {
            return Ok(content.clone());
        }
        let mut reader = self.source.reader()?;
        let content = self.spool.store(&mut reader, self.len, &mut Vec::new())?;
        expect_end(&mut reader)?;
        Ok(unpacked.insert(content).clone())
    }
}

/// Lets a reader compare what it compares at its end.
fn expect_end(reader: &mut dyn Read) -> io::Result<()> {
    match reader.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a file is longer than was said")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tree::Content;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    /// Counts how often it is unpacked, and says at its end whether it is right.
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>, &'static [u8], bool);

    struct Ending<'a>(&'a [u8], bool);

    impl Unpack for Counted {
        fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Ending(self.1, self.2)))
        }

        fn unchecked(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(Ending(self.1, true)))
        }
    }

    impl Read for Ending<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 if !buf.is_empty() && !self.1 => Err(io::ErrorKind::InvalidData.into()),
                count => Ok(count),
            }
        }
    }

    fn packed(len: u64, right: bool) -> (Content, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let spool = Spool::new_in(&std::env::temp_dir()).unwrap();
        let packed = Packed::new(Box::new(Counted(Arc::clone(&count), b"hello", right)), len, spool);
        (Content::Packed(Arc::new(packed)), count)
    }

    #[test]
    fn it_is_unpacked_once_for_all_reads_at_any_place() {
        let (content, count) = packed(5, true);
        assert_eq!(content.read().unwrap(), b"hello");
        let mut part = [0; 2];
        for at in 0..4 {
            gap_format::ReadAt::read_exact_at(&content.open().unwrap(), &mut part, at).unwrap();
            assert_eq!(part, b"hello"[at as usize..][..2]);
        }
        assert_eq!(content.read().unwrap(), b"hello");
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert!(content.same_bytes(&Content::bytes(*b"hello")).unwrap());
    }

    #[test]
    fn what_is_not_as_it_should_be_is_an_error_however_it_is_read() {
        for (content, _) in [packed(5, false), packed(4, true), packed(6, true)] {
            assert!(content.open().is_err() && content.read().is_err());
            let mut out = Vec::new();
            let mut sink = crate::layer::sink::Buffered::new(&mut out);
            let Content::Packed(packed) = &content else { panic!("it is packed") };
            assert!(packed.stream(&mut sink, Compared::Each).is_err());
        }
    }

    #[test]
    fn who_compares_the_whole_gets_what_nobody_vouches_for_but_nothing_of_another_length() {
        let streamed = |len| {
            let (Content::Packed(packed), _) = packed(len, false) else { panic!("it is packed") };
            let mut out = Vec::new();
            let mut sink = crate::layer::sink::Buffered::new(&mut out);
            packed.stream(&mut sink, Compared::Whole)?;
            sink.finish()?;
            io::Result::Ok(out)
        };
        assert_eq!(streamed(5).unwrap(), b"hello");
        assert!(streamed(4).is_err() && streamed(6).is_err());
    }
}
