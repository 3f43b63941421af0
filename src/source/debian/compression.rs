//! Decompression with a bound on what comes out.

use std::io::{self, BufRead, Read};

/// Memory an xz stream may ask for: `xz -9` needs 65 MiB to decompress.
const XZ_MEMORY: u64 = 128 << 20;
/// Largest zstd window accepted, as a power of two: 128 MiB, what the zstd tool takes by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A compression format of Debian archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Compression {
    /// The format that a file name's ending tells; `None` where it is one that is not known.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension {
            "" => Some(Self::None),
            ".gz" => Some(Self::Gzip),
            ".xz" => Some(Self::Xz),
            ".zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// A reader of the decompressed bytes of `source`. Trailing garbage is an error.
    ///
    /// # Errors
    /// What the decoder said when it was set up.
    pub fn reader<'a>(self, source: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(io::Error::other)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// Fails once more than a number of bytes was read: the guard against decompression bombs.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Bounded<R> {
    /// Allows `limit` bytes.
    pub const fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit, limit }
    }

    /// How many bytes were read.
    pub const fn consumed(&self) -> u64 {
        self.limit - self.left
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("decompresses to more than the {} bytes that are allowed", self.limit),
            )
        })?;
        Ok(read)
    }
}

/// Decompresses into memory, at most `limit` bytes.
///
/// # Errors
/// What the decoder said; [`io::ErrorKind::FileTooLarge`] past the limit.
pub fn decompress(compression: Compression, source: impl BufRead + Send, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    Bounded::new(compression.reader(source)?, limit).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(data: &[u8]) -> Vec<(Compression, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(data).unwrap();
        vec![
            (Compression::None, data.to_vec()),
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Xz, xz.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(data, 1).unwrap()),
        ]
    }

    #[test]
    fn every_format_is_decompressed_up_to_the_limit() {
        let data = vec![7; 100_000];
        for (compression, bytes) in packed(&data) {
            assert_eq!(decompress(compression, bytes.as_slice(), 100_000).unwrap(), data, "{compression:?}");
            let error = decompress(compression, bytes.as_slice(), 99_999).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{compression:?}");
        }
    }

    #[test]
    fn truncation_is_an_error() {
        for (compression, bytes) in packed(&[7; 100_000]).into_iter().skip(1) {
            let cut = &bytes[..bytes.len() - 4];
            assert!(decompress(compression, cut, 1 << 20).is_err(), "{compression:?}");
        }
    }
}
