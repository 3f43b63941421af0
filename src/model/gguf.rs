//! GGUF, versions 2 and 3, little-endian: keys and values, a table of tensors, then their data.
//!
//! Only what stands before the data is read, and of long arrays only the length is kept.

mod read;
mod types;

pub use types::TensorType;

use read::{Reader, Value};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Longest part before the data, in bytes; vocabularies of a quarter million tokens take some 10 MB.
const HEAD_MAX: u64 = 512 << 20;
/// Most tensors and most keys.
const COUNT_MAX: u64 = 1 << 17;
/// Alignment of tensors where `general.alignment` is not given.
const ALIGNMENT: u64 = 32;

/// What stands before the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Numbers by key.
    pub numbers: BTreeMap<String, u64>,
    /// Texts by key.
    pub texts: BTreeMap<String, String>,
    /// Lengths of arrays by key.
    pub lengths: BTreeMap<String, u64>,
    /// Each tensor by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Where the data begins, from which the tensors' places are counted; behind the end of a file that has none.
    pub data: u64,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// How its elements are stored.
    pub kind: TensorType,
    /// Its shape, the fastest side first.
    pub shape: Vec<u64>,
    /// Where its bytes start, counted from the start of the data.
    pub offset: u64,
    /// Bytes that it takes; absent where the type is not known.
    pub bytes: Option<u64>,
}

impl Tensor {
    /// Number of its elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &side| product.saturating_mul(side))
    }
}

/// Why a file is no good GGUF.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It ends too early, or cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Not the format, or a version of it that is not known.
    #[error("it is not GGUF of version 2 or 3")]
    Version,
    /// Something is larger than the bounds.
    #[error("{0} is beyond all bounds")]
    TooLarge(&'static str),
    /// Something contradicts the format.
    #[error("{0}")]
    Odd(String),
    /// Two tensors share bytes.
    #[error("the tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor ends behind the end of the file.
    #[error("the tensor `{name}` ends at byte {end} of the data, but {data} are there")]
    Overrun {
        /// The tensor.
        name: String,
        /// Where it ends.
        end: u64,
        /// Bytes of data in the file.
        data: u64,
    },
}

impl Header {
    /// `general.architecture`.
    pub fn architecture(&self) -> Option<&str> {
        self.texts.get("general.architecture").map(String::as_str)
    }

    /// A number of the architecture's own, such as `embedding_length`.
    pub fn of_architecture(&self, key: &str) -> Option<u64> {
        self.numbers.get(&format!("{}.{key}", self.architecture()?)).copied()
    }

    /// Whether it carries a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.texts.contains_key("tokenizer.ggml.model") && self.lengths.contains_key("tokenizer.ggml.tokens")
    }
}

/// Reads what stands before the data in a file of `size` bytes, and checks that the tensors lie within it.
///
/// # Errors
/// [`GgufError`].
pub fn read_header(file: impl Read, size: u64) -> Result<Header, GgufError> {
    let mut reader = Reader::new(file, size.min(HEAD_MAX));
    if reader.bytes::<4>()? != *b"GGUF" || !matches!(reader.u32()?, 2 | 3) {
        return Err(GgufError::Version);
    }
    let (tensors, keys) = (reader.u64()?, reader.u64()?);
    if tensors > COUNT_MAX || keys > COUNT_MAX {
        return Err(GgufError::TooLarge("the number of tensors or keys"));
    }
    let mut header = Header::default();
    for _ in 0..keys {
        let key = reader.text()?;
        match reader.value()? {
            Value::Number(number) => drop(header.numbers.insert(key, number)),
            Value::Text(text) => drop(header.texts.insert(key, text)),
            Value::Array(length) => drop(header.lengths.insert(key, length)),
            Value::Other => {}
        }
    }
    for _ in 0..tensors {
        let (name, tensor) = tensor(&mut reader)?;
        if header.tensors.contains_key(&name) {
            return Err(GgufError::Odd(format!("the tensor `{}` is there twice", name.escape_debug())));
        }
        header.tensors.insert(name, tensor);
    }
    let alignment = header.numbers.get("general.alignment").copied().unwrap_or(ALIGNMENT);
    if alignment == 0 || alignment % 8 != 0 || alignment > HEAD_MAX {
        return Err(GgufError::Odd(format!("its alignment is {alignment}")));
    }
    header.data = reader.position().next_multiple_of(alignment);
    places(&header.tensors, alignment, size.saturating_sub(header.data))?;
    Ok(header)
}

fn tensor(reader: &mut Reader<impl Read>) -> Result<(String, Tensor), GgufError> {
    let name = reader.text()?;
    let sides = reader.u32()?;
    if sides > 8 {
        return Err(GgufError::Odd(format!("the tensor `{}` has {sides} sides", name.escape_debug())));
    }
    let shape = (0..sides).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    let kind = TensorType::new(reader.u32()?);
    let offset = reader.u64()?;
    let elements = shape.iter().try_fold(1_u64, |product, &side| product.checked_mul(side));
    let elements = elements.ok_or(GgufError::TooLarge("the shape of a tensor"))?;
    let bytes = match kind.layout() {
        None => None,
        Some((block, _)) if !shape.first().copied().unwrap_or(1).is_multiple_of(block) => {
            let shown = name.escape_debug();
            return Err(GgufError::Odd(format!("a row of the tensor `{shown}` is no multiple of {block} elements")));
        }
        Some((block, bytes)) => {
            Some((elements / block).checked_mul(bytes).ok_or(GgufError::TooLarge("the length of a tensor"))?)
        }
    };
    Ok((name, Tensor { kind, shape, offset, bytes }))
}

/// Checks that tensors are aligned, and neither overlap nor overrun.
fn places(tensors: &BTreeMap<String, Tensor>, alignment: u64, data: u64) -> Result<(), GgufError> {
    let mut ordered: Vec<(&String, &Tensor)> = tensors.iter().collect();
    ordered.sort_by_key(|(_, tensor)| tensor.offset);
    let mut before: Option<(&String, u64)> = None;
    for (name, tensor) in ordered {
        let shown = || name.escape_debug().to_string();
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(GgufError::Odd(format!("the tensor `{}` is not aligned", shown())));
        }
        let end = tensor.offset.checked_add(tensor.bytes.unwrap_or(0));
        let end = end.ok_or(GgufError::TooLarge("the place of a tensor"))?;
        if end > data {
            return Err(GgufError::Overrun { name: shown(), end, data });
        }
        if let Some((first, _)) = before.filter(|&(_, ended)| tensor.offset < ended) {
            return Err(GgufError::Overlap { first: first.escape_debug().to_string(), second: shown() });
        }
        before = Some((name, end));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
