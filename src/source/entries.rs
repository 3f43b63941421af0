//! The entries of a tar from outside, one after another.
//!
//! What reads tars holds long names and extended headers in memory, as long as the archive says they are. Here no entry may
//! have more of them than real ones do, however much a small compressed archive unpacks to.

use std::{
    cell::Cell,
    io::{self, Read},
};
use tar::{Archive, Entry};

/// Bytes of headers, long names and extended attributes accepted for one entry.
const HEADERS_MAX: u64 = 1 << 20;

/// Lets only so many bytes pass between two refills, so that a header cannot claim more memory.
pub struct Metered<'a, R> {
    inner: R,
    allowance: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.allowance.get()).unwrap_or(usize::MAX).min(buf.len());
        if room == 0 && !buf.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "an entry's headers are larger than any real ones",
            ));
        }
        let read = self.inner.read(buf.get_mut(..room).unwrap_or_default())?;
        self.allowance.set(self.allowance.get() - read as u64);
        Ok(read)
    }
}

/// Hands each entry of a tar to `look`, with its number from 0; what it leaves unread is passed over. What follows the last
/// entry is left in the reader that comes back.
///
/// # Errors
/// What `look` says, and by way of `failed` what goes wrong with reading: above all headers that no real entry has.
/// `source` should bound what it yields.
pub fn each_entry<R: Read, E>(
    source: R,
    failed: impl Fn(io::Error) -> E,
    mut look: impl FnMut(usize, &mut Entry<'_, Metered<'_, R>>) -> Result<(), E>,
) -> Result<R, E> {
    let allowance = Cell::new(HEADERS_MAX);
    let mut archive = Archive::new(Metered { inner: source, allowance: &allowance });
    let mut entries = archive.entries().map_err(&failed)?;
    for number in 0.. {
        allowance.set(HEADERS_MAX);
        let Some(mut entry) = entries.next().transpose().map_err(&failed)? else { break };
        allowance.set(u64::MAX);
        look(number, &mut entry)?;
        // The holes of a sparse file are as long as its header likes, and would be read for as long.
        if !entry.header().entry_type().is_gnu_sparse() {
            io::copy(&mut entry, &mut io::sink()).map_err(&failed)?;
        }
    }
    Ok(archive.into_inner().inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{EntryType, Header};

    fn entry(kind: EntryType, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("some").unwrap();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn sizes(bytes: &[u8]) -> io::Result<Vec<u64>> {
        let mut sizes = Vec::new();
        each_entry(
            bytes,
            |error| error,
            |number, entry| {
                assert_eq!(number, sizes.len());
                sizes.push(entry.size());
                Ok(())
            },
        )?;
        Ok(sizes)
    }

    #[test]
    fn headers_that_no_entry_has_are_refused_before_they_are_held() {
        let file = entry(EntryType::Regular, b"x");
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let error = sizes(&[entry(kind, &[b'a'; 2 << 20]), file.clone()].concat()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{kind:?}");
        }
        let long = entry(EntryType::GNULongName, &[b'a'; 1 << 16]);
        assert_eq!(sizes(&[long, file].concat()).unwrap(), [1]);
    }

    #[test]
    fn contents_of_any_length_are_passed_over() {
        let large = entry(EntryType::Regular, &vec![0; 3 << 20]);
        let global = entry(EntryType::XGlobalHeader, &vec![0; 2 << 20]);
        assert_eq!(
            sizes(&[large.clone(), global, large, entry(EntryType::Regular, b"")].concat()).unwrap(),
            [3 << 20, 2 << 20, 3 << 20, 0]
        );
    }
}
