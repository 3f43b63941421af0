//! The GGUF file format, version 3: a header with metadata and a list of tensors, then their data.
//!
//! All numbers are little-endian. The writer streams: offsets follow from types and shapes, so that no more than one
//! tensor is in memory.

use std::io::{self, Write};

/// The data of each tensor starts on a multiple of so many bytes; the format's default.
const ALIGNMENT: u64 = 32;
const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An unsigned number.
    U32(u32),
    /// A float.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Signed numbers.
    I32s(Vec<i32>),
    /// Floats.
    F32s(Vec<f32>),
}

impl Value {
    /// The number that stands for the type in the file.
    const fn type_number(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::I32s(_) | Self::F32s(_) => 9,
        }
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::U32(value) => to.write_all(&value.to_le_bytes()),
            Self::F32(value) => to.write_all(&value.to_le_bytes()),
            Self::Bool(value) => to.write_all(&[u8::from(*value)]),
            Self::Text(value) => text(to, value),
            Self::Texts(values) => array(to, 8, values, |to, value| text(to, value)),
            Self::I32s(values) => array(to, 5, values, |to, value| to.write_all(&value.to_le_bytes())),
            Self::F32s(values) => array(to, 6, values, |to, value| to.write_all(&value.to_le_bytes())),
        }
    }
}

fn text(to: &mut impl Write, value: &str) -> io::Result<()> {
    to.write_all(&(value.len() as u64).to_le_bytes())?;
    to.write_all(value.as_bytes())
}

fn array<W: Write, T>(
    to: &mut W,
    type_number: u32,
    values: &[T],
    one: impl Fn(&mut W, &T) -> io::Result<()>,
) -> io::Result<()> {
    to.write_all(&type_number.to_le_bytes())?;
    to.write_all(&(values.len() as u64).to_le_bytes())?;
    values.iter().try_for_each(|value| one(to, value))
}

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Blocks of 32 numbers of 8 bits and one 16-bit scale.
    Q8_0,
}

impl Stored {
    const fn type_number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes that so many numbers take.
    const fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F32 => numbers * 4,
            Self::F16 => numbers * 2,
            Self::Q8_0 => numbers / 32 * 34,
        }
    }
}

/// A tensor as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its shape, the slowest dimension first (the file has it the other way round).
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub stored: Stored,
}

impl Described {
    /// Bytes of its data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stored.bytes(self.shape.iter().map(|&size| size as u64).product())
    }
}

/// Writes metadata and tensors; `data` gives each tensor's bytes when its turn comes.
///
/// # Errors
/// Those of `to` and of `data`; and when `data` gives another number of bytes than the description says.
pub fn write<E: From<io::Error>>(
    to: &mut impl Write,
    metadata: &[(String, Value)],
    tensors: &[Described],
    mut data: impl FnMut(&Described) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let mut header = Vec::new();
    head(&mut header, metadata, tensors)?;
    pad(&mut header)?;
    to.write_all(&header)?;
    for tensor in tensors {
        let mut bytes = data(tensor)?;
        if bytes.len() as u64 != tensor.bytes() {
            let what = format!("`{}` has {} bytes and not {}", tensor.name, bytes.len(), tensor.bytes());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
        }
        pad(&mut bytes)?;
        to.write_all(&bytes)?;
    }
    Ok(())
}

fn head(to: &mut Vec<u8>, metadata: &[(String, Value)], tensors: &[Described]) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&(tensors.len() as u64).to_le_bytes())?;
    to.write_all(&(metadata.len() as u64).to_le_bytes())?;
    for (key, value) in metadata {
        text(to, key)?;
        to.write_all(&value.type_number().to_le_bytes())?;
        value.write(to)?;
    }
    let mut offset = 0u64;
    for tensor in tensors {
        text(to, &tensor.name)?;
        to.write_all(&u32::try_from(tensor.shape.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        for &size in tensor.shape.iter().rev() {
            to.write_all(&(size as u64).to_le_bytes())?;
        }
        to.write_all(&tensor.stored.type_number().to_le_bytes())?;
        to.write_all(&offset.to_le_bytes())?;
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

fn pad(bytes: &mut Vec<u8>) -> io::Result<()> {
    let aligned = (bytes.len() as u64).next_multiple_of(ALIGNMENT);
    bytes.resize(usize::try_from(aligned).map_err(io::Error::other)?, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file::Content;
    use std::io::Cursor;

    #[test]
    fn another_reader_finds_what_was_written() {
        let metadata = [
            ("general.architecture".to_owned(), Value::Text("llama".to_owned())),
            ("n".to_owned(), Value::U32(7)),
            ("x".to_owned(), Value::F32(0.5)),
            ("b".to_owned(), Value::Bool(true)),
            ("words".to_owned(), Value::Texts(vec!["a".to_owned(), "ß".to_owned()])),
            ("types".to_owned(), Value::I32s(vec![1, -1])),
            ("scores".to_owned(), Value::F32s(vec![0., -2.])),
        ];
        let tensors = [
            Described { name: "odd".to_owned(), shape: vec![3], stored: Stored::F32 },
            Described { name: "wide".to_owned(), shape: vec![2, 32], stored: Stored::Q8_0 },
            Described { name: "half".to_owned(), shape: vec![2, 3], stored: Stored::F16 },
        ];
        let mut file = Vec::new();
        let bytes = |tensor: &Described| Ok::<_, io::Error>(vec![1; usize::try_from(tensor.bytes()).unwrap()]);
        write(&mut file, &metadata, &tensors, bytes).unwrap();
        let mut file = Cursor::new(file);
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.metadata["n"].to_u32().unwrap(), 7);
        assert!(content.metadata["b"].to_bool().unwrap());
        assert_eq!(content.metadata["words"].to_vec().unwrap()[1].to_string().unwrap(), "ß");
        assert_eq!(content.metadata["types"].to_vec().unwrap()[1].to_i32().unwrap(), -1);
        for tensor in &tensors {
            let read = content.tensor(&mut file, &tensor.name, &candle_core::Device::Cpu).unwrap();
            assert_eq!(read.shape().dims(), tensor.shape);
            assert!(read.data().unwrap().iter().all(|&byte| byte == 1));
        }
    }

    #[test]
    fn data_of_another_size_than_described_is_refused() {
        let tensors = [Described { name: "t".to_owned(), shape: vec![3], stored: Stored::F32 }];
        let written = write(&mut Vec::new(), &[], &tensors, |_| Ok::<_, io::Error>(vec![0; 11]));
        assert!(written.unwrap_err().to_string().contains("`t` has 11 bytes and not 12"));
    }
}
