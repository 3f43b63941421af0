//! Safetensors: eight bytes of length, a header in JSON, raw tensors.
//!
//! The `safetensors` crate checks that the tensors cover the data exactly, without overlap or hole, and that each is as
//! long as its type and shape say; only the header is read.

use safetensors::tensor::Metadata;
use std::{collections::BTreeMap, io::Read};

pub use safetensors::Dtype;

/// Longest header, in bytes: the format's own bound.
const HEADER_MAX: u64 = 100_000_000;
/// Length of the length before the header, in bytes.
const LENGTH: u64 = 8;

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Each tensor by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free texts by key (`__metadata__`).
    pub metadata: BTreeMap<String, String>,
    /// Where the tensors' data begins, which goes on to the end of the file.
    pub data: u64,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Bytes that it takes.
    pub bytes: u64,
}

impl Tensor {
    /// Number of its elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &side| product.saturating_mul(side))
    }
}

/// Why a file is no good safetensors.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The length of the header is longer than the file or the format's bound.
    #[error("its header would be {found} bytes long, in a file of {size}")]
    HeaderLength {
        /// Length that it gives.
        found: u64,
        /// Length of the file.
        size: u64,
    },
    /// Bad JSON, overlaps, holes, or lengths that do not fit shapes.
    #[error("its header is damaged or lies: {0}")]
    Header(String),
    /// The tensors end elsewhere than the file.
    #[error("its tensors take {tensors} bytes, but {data} follow the header")]
    Length {
        /// Bytes that the header accounts for.
        tensors: u64,
        /// Bytes after the header.
        data: u64,
    },
}

/// Reads the header of a file of `size` bytes.
///
/// # Errors
/// [`SafetensorsError`].
pub fn read_header(mut file: impl Read, size: u64) -> Result<Header, SafetensorsError> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let data = size.checked_sub(LENGTH).and_then(|rest| rest.checked_sub(length));
    let Some(data) = data.filter(|_| length <= HEADER_MAX) else {
        return Err(SafetensorsError::HeaderLength { found: length, size });
    };
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json)?;
    let metadata: Metadata =
        serde_json::from_slice(&json).map_err(|error| SafetensorsError::Header(error.to_string()))?;
    let tensors = metadata.data_len() as u64;
    if tensors != data {
        return Err(SafetensorsError::Length { tensors, data });
    }
    Ok(header(&metadata, LENGTH + length))
}

fn header(metadata: &Metadata, data: u64) -> Header {
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let shape = info.shape.iter().map(|&side| side as u64).collect();
        let bytes = info.data_offsets.1.saturating_sub(info.data_offsets.0) as u64;
        (name, Tensor { dtype: info.dtype, shape, bytes })
    });
    let texts = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    Header { tensors: tensors.collect(), metadata: texts.collect(), data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend(std::iter::repeat_n(0, data));
        file
    }

    fn read(bytes: &[u8]) -> Result<Header, SafetensorsError> {
        read_header(bytes, bytes.len() as u64)
    }

    #[test]
    fn tensors_and_texts_are_read() {
        let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
            "b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}"#;
        let header = read(&file(json, 26)).unwrap();
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.data, 8 + json.len() as u64);
        assert_eq!(header.tensors["a"], Tensor { dtype: Dtype::F32, shape: vec![2, 3], bytes: 24 });
        assert_eq!(header.tensors["b"].elements(), 1);
    }

    #[test]
    fn overlaps_holes_overruns_and_lies_are_refused() {
        let two = |a: &str, b: &str| format!(r#"{{"a":{{"dtype":"F32",{a}}},"b":{{"dtype":"F32",{b}}}}}"#);
        for (json, data) in [
            (two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[2],"data_offsets":[4,12]"#), 12),
            (two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[2],"data_offsets":[12,20]"#), 20),
            (two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[3],"data_offsets":[8,16]"#), 16),
            (
                two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[4294967296,4294967296],"data_offsets":[8,16]"#),
                16,
            ),
            (two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[2],"data_offsets":[16,8]"#), 16),
            (two(r#""shape":[2],"data_offsets":[0,8]"#, r#""shape":[-1],"data_offsets":[8,12]"#), 12),
        ] {
            assert!(matches!(read(&file(&json, data)), Err(SafetensorsError::Header(_))), "{json}");
        }
        let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        for data in [0, 7, 9] {
            assert!(matches!(read(&file(one, data)), Err(SafetensorsError::Length { .. })), "{data}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_or_the_bound_is_refused() {
        let mut long = file("{}", 0);
        long[0] = 3;
        assert!(matches!(read(&long), Err(SafetensorsError::HeaderLength { .. })));
        let claimed = read_header(&u64::MAX.to_le_bytes()[..], u64::MAX);
        assert!(matches!(claimed, Err(SafetensorsError::HeaderLength { .. })));
        assert!(matches!(read(b"abc"), Err(SafetensorsError::Read(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
