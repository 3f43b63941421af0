//! Decompression with a bound on what comes out.

use std::{
    io::{self, BufRead, Read},
    num::NonZeroU32,
};

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

    /// Like [`Compression::reader`], but xz is one stream whose blocks are decompressed by several threads where they say
    /// how long they are, as in packages made by dpkg. What follows that stream is left in `source`.
    ///
    /// # Errors
    /// What the decoder said when it was set up.
    pub fn parallel_reader<'a>(
        self,
        source: impl BufRead + Send + 'a,
        threads: NonZeroU32,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        if self != Self::Xz {
            return self.reader(source);
        }
        let mut builder = liblzma::stream::MtStreamBuilder::new();
        builder.threads(threads.get()).memlimit_threading(XZ_MEMORY).memlimit_stop(XZ_MEMORY);
        let stream = builder.decoder().map_err(io::Error::other)?;
        Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream)))
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

    /// 12 blocks of 100,000 bytes that say how long they are, as dpkg makes them.
    fn blocks() -> (Vec<u8>, Vec<u8>) {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let data: Vec<u8> = (0..1_200_000).map(|_| noise()).collect();
        let mut builder = liblzma::stream::MtStreamBuilder::new();
        builder.threads(2).block_size(100_000).preset(1).check(liblzma::stream::Check::Crc64);
        let stream = builder.encoder().unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(&data).unwrap();
        (data, encoder.finish().unwrap())
    }

    fn in_parallel(compression: Compression, mut packed: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut data = Vec::new();
        let source = &mut packed;
        compression.parallel_reader(source, NonZeroU32::new(3).unwrap())?.read_to_end(&mut data)?;
        Ok((data, packed.len()))
    }

    #[test]
    fn several_threads_decompress_the_same_and_find_the_same_damage() {
        let (data, packed) = blocks();
        assert_eq!(decompress(Compression::Xz, packed.as_slice(), 1_200_000).unwrap(), data);
        assert!(in_parallel(Compression::Xz, &packed).unwrap() == (data, 0));
        for at in (0..packed.len()).step_by(packed.len() / 20) {
            let mut damaged = packed.clone();
            damaged[at] ^= 1;
            assert!(in_parallel(Compression::Xz, &damaged).is_err(), "byte {at} of {}", packed.len());
            assert!(in_parallel(Compression::Xz, &packed[..at]).is_err(), "cut at {at} of {}", packed.len());
        }
        let followed = [packed.as_slice(), b"more"].concat();
        assert_eq!(in_parallel(Compression::Xz, &followed).unwrap().1, 4, "what follows is the caller's to judge");
        for (compression, bytes) in super::tests::packed(&[7; 1000]) {
            assert_eq!(in_parallel(compression, &bytes).unwrap().0, [7; 1000], "{compression:?}");
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
