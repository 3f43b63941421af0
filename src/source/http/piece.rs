//! Pieces of files, for what is at the end of an archive.

use super::{
    Client, HttpError,
    request::{Answer, range_start, refused},
    shown,
};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Which bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many from this position on.
    From(u64, u64),
    /// The last ones.
    Last(u64),
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Position of its first byte.
    pub start: u64,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Length of the whole file.
    pub total: u64,
}

impl Client {
    /// Fetches a piece of a file; `None` if the server only gives whole files.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn piece(&self, url: &str, span: Span) -> Result<Option<Piece>, HttpError> {
        let (range, max) = match span {
            Span::From(start, len) => (format!("bytes={start}-{}", start.saturating_add(len.max(1)) - 1), len),
            Span::Last(len) => (format!("bytes=-{len}"), len),
        };
        self.persist(|| {
            if let Some(path) = url.strip_prefix("file://") {
                return file_piece(path, span).map(Some);
            }
            let response = self.connections.ask(url, Some(&range), self.terms(None))?;
            let status = response.status().as_u16();
            let shape = response.headers().get("content-range").and_then(|value| content_range(value.to_str().ok()?));
            let (start, total) = match (status, shape) {
                (206, Some(shape)) => shape,
                (200, _) | (206, None) => return Ok(None),
                _ => return Err(refused(url, status, response.headers())),
            };
            let mut body = Answer { reader: Box::new(response.into_body().into_reader()), start, length: None };
            let data = self.read_whole(url, &mut body, max)?;
            let expected = max.min(total.saturating_sub(start));
            match data.len() as u64 == expected {
                true => Ok(Some(Piece { start, data, total })),
                false => Err(HttpError::Truncated { url: shown(url), got: data.len() as u64, expected }),
            }
        })
    }

    /// The length of a file that the server only gives whole.
    ///
    /// # Errors
    /// [`HttpError`]; [`HttpError::Unreachable`] if the server does not say.
    pub fn length(&self, url: &str) -> Result<u64, HttpError> {
        self.persist(|| {
            let unknown = || HttpError::Unreachable { url: shown(url), reason: "its length is not told".to_owned() };
            self.connections.open(url, 0, self.terms(None))?.length.ok_or_else(unknown)
        })
    }

    /// The rest of an answer, if it has `max` bytes at most.
    pub(super) fn read_whole(&self, url: &str, body: &mut Answer, max: u64) -> Result<Vec<u8>, HttpError> {
        let mut data = Vec::new();
        self.pump(url, &mut body.reader, |chunk| {
            if data.len() as u64 + chunk.len() as u64 > max {
                return Err(HttpError::TooLarge { url: shown(url), limit: max });
            }
            data.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(data)
    }
}

fn file_piece(path: &str, span: Span) -> Result<Piece, HttpError> {
    let failed = |source| HttpError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let (start, len) = match span {
        Span::From(start, len) => (start.min(total), len),
        Span::Last(len) => (total.saturating_sub(len), len),
    };
    let mut data = Vec::new();
    file.seek(SeekFrom::Start(start)).and_then(|_| file.take(len).read_to_end(&mut data)).map_err(failed)?;
    Ok(Piece { start, data, total })
}

/// First position and length of the whole, of `bytes FIRST-LAST/SIZE`.
fn content_range(header: &str) -> Option<(u64, u64)> {
    Some((range_start(header)?, header.rsplit_once('/')?.1.parse().ok()?))
}
