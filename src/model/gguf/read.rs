//! The pieces that a GGUF file is written in.

use super::GgufError;
use std::io::{BufReader, Read, Take};

/// Longest text that is kept, in bytes; longer ones are passed over.
const TEXT_MAX: u64 = 1 << 20;
/// How deep arrays may lie in arrays.
const DEPTH_MAX: u32 = 4;

/// Reads within a bound, and knows where it is.
pub(super) struct Reader<R> {
    inner: Take<BufReader<R>>,
    limit: u64,
}

/// A value, as far as it is of use.
#[derive(Debug)]
pub(super) enum Value {
    /// An unsigned integer, or a signed one that is not negative.
    Number(u64),
    Text(String),
    /// Length of an array.
    Array(u64),
    /// Truth values, fractions, negative numbers, very long texts.
    Other,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner: BufReader::with_capacity(1 << 16, inner).take(limit), limit }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.limit - self.inner.limit()
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text that is a name: at most 64 KiB.
    pub(super) fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > 1 << 16 {
            return Err(GgufError::TooLarge("the length of a name"));
        }
        self.text_of(length)
    }

    fn text_of(&mut self, length: u64) -> Result<String, GgufError> {
        let mut bytes = Vec::new();
        (&mut self.inner).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip(&mut self, length: u64) -> Result<(), GgufError> {
        match std::io::copy(&mut (&mut self.inner).take(length), &mut std::io::sink())? == length {
            true => Ok(()),
            false => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// A type and a value of it.
    pub(super) fn value(&mut self) -> Result<Value, GgufError> {
        let kind = self.u32()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u32, depth: u32) -> Result<Value, GgufError> {
        let signed = |number: i64| u64::try_from(number).map_or(Value::Other, Value::Number);
        Ok(match kind {
            0 => Value::Number(u64::from(u8::from_le_bytes(self.bytes()?))),
            1 => signed(i64::from(i8::from_le_bytes(self.bytes()?))),
            2 => Value::Number(u64::from(u16::from_le_bytes(self.bytes()?))),
            3 => signed(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => Value::Number(u64::from(self.u32()?)),
            5 => signed(i64::from(i32::from_le_bytes(self.bytes()?))),
            6 => self.bytes::<4>().map(|_| Value::Other)?,
            7 => self.bytes::<1>().map(|_| Value::Other)?,
            8 => match self.u64()? {
                length if length <= TEXT_MAX => Value::Text(self.text_of(length)?),
                length => self.skip(length).map(|()| Value::Other)?,
            },
            9 => self.array(depth)?,
            10 => Value::Number(self.u64()?),
            11 => signed(i64::from_le_bytes(self.bytes()?)),
            12 => self.bytes::<8>().map(|_| Value::Other)?,
            other => return Err(GgufError::Odd(format!("a value has the unknown type {other}"))),
        })
    }

    /// Passes over an array. Each element takes bytes of the file, so a lie about its length ends with the file.
    fn array(&mut self, depth: u32) -> Result<Value, GgufError> {
        let (kind, length) = (self.u32()?, self.u64()?);
        let fixed: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => 0,
        };
        if fixed > 0 {
            self.skip(length.checked_mul(fixed).ok_or(GgufError::TooLarge("the length of an array"))?)?;
            return Ok(Value::Array(length));
        }
        if depth == DEPTH_MAX {
            return Err(GgufError::TooLarge("the depth of an array"));
        }
        for _ in 0..length {
            match kind {
                8 => {
                    let length = self.u64()?;
                    self.skip(length)?;
                }
                _ => drop(self.value_of(kind, depth + 1)?),
            }
        }
        Ok(Value::Array(length))
    }
}
