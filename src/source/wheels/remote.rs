//! The metadata of a wheel that is not fetched: pieces of its archive, read where it lies.

use super::{
    archive::{Archive, ArchiveError},
    error::WheelsError,
    metadata,
};
use crate::source::http::{Client, HttpError, Piece, Span};
use rawzip::ReaderAt;
use std::{io, sync::Mutex};

/// Bytes asked for at once: most directories and metadata need no second request.
const CHUNK: u64 = 256 << 10;

/// Bytes that are fetched of one file: more than the directory and the metadata of any wheel that is accepted. Pieces stay in
/// memory, and a member can be written so that all of a file is needed to see that nothing is in it.
const FETCHED_MAX: u64 = 64 << 20;

/// A file on a server that gives pieces of it.
pub(super) struct Remote<'c> {
    client: &'c Client,
    url: String,
    total: u64,
    pieces: Mutex<Vec<Piece>>,
}

impl<'c> Remote<'c> {
    /// Opens a file; `None` if the server only gives it whole.
    pub fn open(client: &'c Client, url: &str) -> Result<Option<Self>, HttpError> {
        let Some(end) = client.piece(url, Span::Last(CHUNK))? else { return Ok(None) };
        let total = end.total;
        Ok(Some(Self { client, url: url.to_owned(), total, pieces: Mutex::new(vec![end]) }))
    }

    /// Its length in bytes.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

impl ReaderAt for Remote<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut pieces = self.pieces.lock().map_err(|_| io::Error::other("another thread died"))?;
        if let Some(read) = pieces.iter().find_map(|piece| copy(piece, buf, offset)) {
            return Ok(read);
        }
        if offset >= self.total || buf.is_empty() {
            return Ok(0);
        }
        let len = CHUNK.max(buf.len() as u64).min(self.total - offset);
        let held: u64 = pieces.iter().map(|piece| piece.data.len() as u64).sum();
        if held + len > FETCHED_MAX {
            let what = "more of it would have to be fetched for its metadata than any wheel has";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        let piece = self.client.piece(&self.url, Span::From(offset, len)).map_err(io::Error::other)?;
        let piece = piece.filter(|piece| piece.start == offset && piece.total == self.total);
        let piece = piece.ok_or_else(|| io::Error::other("the server gives other bytes than before"))?;
        let read = copy(&piece, buf, offset).unwrap_or_default();
        pieces.push(piece);
        Ok(read)
    }
}

/// What a piece has of the bytes from `offset` on.
fn copy(piece: &Piece, buf: &mut [u8], offset: u64) -> Option<usize> {
    let at = usize::try_from(offset.checked_sub(piece.start)?).ok()?;
    let there = piece.data.get(at..).filter(|there| !there.is_empty())?;
    let count = there.len().min(buf.len());
    buf.get_mut(..count)?.copy_from_slice(there.get(..count)?);
    Some(count)
}

/// The metadata in an open wheel; `file` is its name, for messages.
pub(super) fn metadata_in<R: ReaderAt>(archive: &Archive<R>, file: &str) -> Result<metadata::Metadata, WheelsError> {
    let read = || -> Result<Vec<u8>, ArchiveError> {
        let path = format!("{}/METADATA", archive.dist_info()?);
        archive.read(&path, metadata::MAX_LEN)
    };
    let data = read().map_err(|source| WheelsError::Archive { file: file.to_owned(), source })?;
    metadata::Metadata::parse(&data).map_err(|source| WheelsError::Metadata { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http::Settings;
    use std::io::Write;

    #[test]
    fn pieces_make_the_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        file.write_all(&bytes).unwrap();
        let client = Client::new(Settings::default());
        let remote = Remote::open(&client, &format!("file://{}", file.path().display())).unwrap().unwrap();
        assert_eq!(remote.total(), 4_000_000);
        for (offset, len) in [(0, 10), (3_999_000, 1000), (100_000, 700_000), (3_500_000, 400_000)] {
            let mut buffer = vec![0; len];
            remote.read_exact_at(&mut buffer, offset as u64).unwrap();
            assert_eq!(buffer, bytes[offset..offset + len]);
        }
        assert!(remote.read_exact_at(&mut [0; 2], 3_999_999).is_err());
    }

    #[test]
    fn only_so_much_of_a_file_is_fetched() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FETCHED_MAX + (8 << 20)).unwrap();
        let client = Client::new(Settings::default());
        let remote = Remote::open(&client, &format!("file://{}", file.path().display())).unwrap().unwrap();
        let refused = (0..remote.total()).step_by(1 << 16).find_map(|at| remote.read_at(&mut [0], at).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::FileTooLarge);
        let held: u64 = remote.pieces.lock().unwrap().iter().map(|piece| piece.data.len() as u64).sum();
        assert!(held <= FETCHED_MAX && held > FETCHED_MAX - (2 * CHUNK), "{held}");
    }
}
