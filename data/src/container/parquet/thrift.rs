//! As much of Thrift's compact protocol as it takes to walk over structures
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

/// Levels of nested structures and lists; Parquet's own have six.
const MAX_DEPTH: usize = 16;

/// Types of fields.
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// The bytes are no structure in the compact protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a structure is damaged")]
pub(super) struct Malformed;

/// Walks over bytes.
#[derive(Debug, Clone)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Compact<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes walked over.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Calls `field` with number and type of each field of a structure; it reads the value, or says `false` to have it
    /// skipped.
    pub fn structure(
        &mut self,
        field: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let mut number = 0i64;
        while let Some((next, kind)) = self.field(number)? {
            number = next;
            if !field(self, number, kind)? {
                self.skip(kind, 0)?;
            }
        }
        Ok(())
    }

    /// Length and type of the elements of a list.
    pub fn list(&mut self) -> Result<(u64, u8), Malformed> {
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        // Each element takes at least a byte.
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(Malformed);
        }
        Ok((len, head & 15))
    }

    /// An integer of any width.
    pub fn integer(&mut self) -> Result<i64, Malformed> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>, Malformed> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let number = match head >> 4 {
            0 => self.integer()?,
            delta => last.checked_add(i64::from(delta)).ok_or(Malformed)?,
        };
        Ok(Some((number, head & 15)))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match kind {
            // A boolean field is its type.
            1 | 2 => Ok(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.advance(8),
            8 => {
                let len = self.varint()?;
                self.advance(len)
            }
            9 | 10 => {
                let (len, of) = self.list()?;
                (0..len).try_for_each(|_| self.element(of, depth + 1))
            }
            11 => self.map(depth + 1),
            12 => {
                let mut number = 0;
                while let Some((next, kind)) = self.field(number)? {
                    number = next;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            13 => self.advance(16),
            _ => Err(Malformed),
        }
    }

    /// In lists a boolean takes a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), Malformed> {
        match kind {
            1 | 2 => self.advance(1),
            _ => self.skip(kind, depth),
        }
    }

    fn map(&mut self, depth: usize) -> Result<(), Malformed> {
        let len = self.varint()?;
        if len == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(Malformed);
        }
        for _ in 0..len {
            self.element(kinds >> 4, depth)?;
            self.element(kinds & 15, depth)?;
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, count: u64) -> Result<(), Malformed> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(Malformed);
        }
        self.at += count as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_structures_are_walked() {
        // 1: i32 = -2, 2: binary "ab", 3: list<bool> of 2, 4: true, 20: map<i32, struct {}> of 1, stop.
        let bytes = [0x15, 0x03, 0x18, 2, b'a', b'b', 0x19, 0x21, 1, 2, 0x11, 0x0b, 40, 1, 0x5c, 2, 0, 0];
        let mut seen = Vec::new();
        let mut walk = Compact::new(&bytes);
        walk.structure(&mut |walk, number, kind| {
            if kind == I32 {
                assert_eq!(walk.integer(), Ok(-2));
            }
            seen.push(number);
            Ok(kind == I32)
        })
        .unwrap();
        assert_eq!(seen, [1, 2, 3, 4, 20]);
        assert_eq!(walk.position(), bytes.len());
    }

    #[test]
    fn depth_and_lengths_are_bounded() {
        let nested = vec![0x1c; 1 << 20];
        assert_eq!(Compact::new(&nested).structure(&mut |_, _, _| Ok(false)), Err(Malformed));
        let long = [0x19, 0xf3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(Compact::new(&long).structure(&mut |_, _, _| Ok(false)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Compact::new(&bytes).structure(&mut |_, _, _| Ok(false));
        }
    }
}
