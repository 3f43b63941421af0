//! The 512-byte `ustar` header (POSIX.1-1988, `tar.h`): fields, numbers, checksum.

use super::RECORD;

/// One header record.
pub(super) type Block = [u8; RECORD as usize];

/// The kind of a member, its `typeflag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
    Extended = b'x' as isize,
}

impl Type {
    fn from_flag(flag: u8) -> Option<Self> {
        Some(match flag {
            b'0' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'x' => Self::Extended,
            _ => return None,
        })
    }
}

/// The fields of a header that a layer uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub kind: Type,
    /// At most [`NAME_LEN`] bytes are stored.
    pub name: &'a [u8],
    /// At most [`NAME_LEN`] bytes are stored.
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub device: (u32, u32),
}

/// Bytes that fit into the name and link fields; longer ones need a PAX record.
pub(super) const NAME_LEN: usize = 100;

const NAME: usize = 0;
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const MTIME: usize = 136;
const CHECKSUM: usize = 148;
const TYPE: usize = 156;
const LINK: usize = 157;
const MAGIC: usize = 257;
const OWNER_NAMES: usize = 265;
const DEV_MAJOR: usize = 329;
const DEV_MINOR: usize = 337;
const PREFIX: usize = 345;
const MAGIC_AND_VERSION: &[u8; 8] = b"ustar\x0000";

impl Header<'_> {
    /// The record.
    pub(super) fn encode(&self) -> Block {
        let mut block = [0; RECORD as usize];
        put(&mut block, NAME, NAME_LEN, self.name);
        put(&mut block, LINK, NAME_LEN, self.link);
        put(&mut block, MODE, 8, &number::<8>(i128::from(self.mode)));
        put(&mut block, UID, 8, &number::<8>(i128::from(self.uid)));
        put(&mut block, GID, 8, &number::<8>(i128::from(self.gid)));
        put(&mut block, SIZE, 12, &number::<12>(i128::from(self.size)));
        put(&mut block, MTIME, 12, &number::<12>(i128::from(self.mtime)));
        put(&mut block, TYPE, 1, &[self.kind as u8]);
        put(&mut block, MAGIC, 8, MAGIC_AND_VERSION);
        put(&mut block, DEV_MAJOR, 8, &number::<8>(i128::from(self.device.0)));
        put(&mut block, DEV_MINOR, 8, &number::<8>(i128::from(self.device.1)));
        let sum = format!("{:06o}\0 ", checksum(&block));
        put(&mut block, CHECKSUM, 8, sum.as_bytes());
        block
    }
}

impl<'a> Header<'a> {
    /// The fields of a record, if it is exactly what [`Header::encode`] would write for them.
    pub(super) fn decode(block: &'a Block) -> Result<Self, &'static str> {
        let decoded = Self::fields(block)?;
        if decoded.encode() != *block {
            return Err("its header is not in the one form that a layer uses");
        }
        Ok(decoded)
    }

    fn fields(block: &'a Block) -> Result<Self, &'static str> {
        if field(block, MAGIC, 8) != MAGIC_AND_VERSION {
            return Err("it does not start with a ustar header");
        }
        if field(block, CHECKSUM, 8) != format!("{:06o}\0 ", checksum(block)).as_bytes() {
            return Err("its header checksum is wrong");
        }
        if field(block, OWNER_NAMES, 64).iter().chain(field(block, PREFIX, 167)).any(|&byte| byte != 0) {
            return Err("its header names an owner or a prefix, which no layer does");
        }
        let flag = field(block, TYPE, 1).first().copied().unwrap_or_default();
        let wide = "a number in its header is out of range";
        let small = |at| u32::try_from(parse(field(block, at, 8))?).ok();
        Ok(Self {
            kind: Type::from_flag(flag).ok_or("its type is none that a layer uses")?,
            name: text(field(block, NAME, NAME_LEN)),
            link: text(field(block, LINK, NAME_LEN)),
            mode: small(MODE).filter(|&mode| mode <= 0o7777).ok_or(wide)?,
            uid: small(UID).ok_or(wide)?,
            gid: small(GID).ok_or(wide)?,
            size: parse(field(block, SIZE, 12)).and_then(|size| u64::try_from(size).ok()).ok_or(wide)?,
            mtime: parse(field(block, MTIME, 12)).and_then(|time| i64::try_from(time).ok()).ok_or(wide)?,
            device: (small(DEV_MAJOR).ok_or(wide)?, small(DEV_MINOR).ok_or(wide)?),
        })
    }
}

fn put(block: &mut Block, at: usize, width: usize, value: &[u8]) {
    let field = block.iter_mut().skip(at).take(width);
    field.zip(value).for_each(|(to, from)| *to = *from);
}

fn field(block: &Block, at: usize, width: usize) -> &[u8] {
    block.get(at..at + width).unwrap_or_default()
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Sum of the header's bytes, its own field counted as spaces.
fn checksum(block: &Block) -> u32 {
    let inside = |at: usize| (CHECKSUM..CHECKSUM + 8).contains(&at);
    block.iter().enumerate().map(|(at, &byte)| if inside(at) { u32::from(b' ') } else { u32::from(byte) }).sum()
}

/// Octal digits and a NUL, or base-256 (two's complement, first bit set) where those do not fit.
fn number<const WIDTH: usize>(value: i128) -> [u8; WIDTH] {
    let mut out = [0; WIDTH];
    let digits = WIDTH - 1;
    if (0..1 << (3 * digits)).contains(&value) {
        let octal = format!("{value:0digits$o}");
        out.iter_mut().zip(octal.bytes()).for_each(|(to, from)| *to = from);
        return out;
    }
    out.iter_mut().rev().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    if let Some(first) = out.first_mut() {
        *first |= 0x80;
    }
    out
}

/// The inverse of [`number`]; loose, because the caller compares with the encoding.
fn parse(field: &[u8]) -> Option<i128> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        let digits = std::str::from_utf8(text(field)).ok()?;
        return i128::from_str_radix(digits, 8).ok();
    }
    let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { -1 };
    Some(field.iter().skip(1).fold(start, |value, &byte| (value << 8) | i128::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_too_wide_for_octal_are_base_256() {
        assert_eq!(&number::<12>(0o777), b"00000000777\0");
        assert_eq!(&number::<12>(8 << 30), b"\x80\0\0\0\0\0\0\x02\0\0\0\0");
        for value in [0, 1, (8 << 30) - 1, 8 << 30, i128::from(i64::MAX), -1, i128::from(i64::MIN)] {
            assert_eq!(parse(&number::<12>(value)), Some(value));
        }
        assert_eq!(parse(&number::<8>(i128::from(u32::MAX))), Some(i128::from(u32::MAX)));
    }

    #[test]
    fn a_header_has_one_encoding() {
        let header = Header {
            kind: Type::File,
            name: b"etc/passwd",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 42,
            size: 12,
            mtime: 1_700_000_000,
            device: (0, 0),
        };
        let block = header.encode();
        assert_eq!(Header::decode(&block), Ok(header));
        for at in 0..block.len() {
            let mut other = block;
            other[at] ^= 1;
            assert!(Header::decode(&other).is_err(), "byte {at}");
        }
    }
}
