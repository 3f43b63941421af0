//! PAX extended header records: `LENGTH KEY=VALUE\n`, LENGTH counting itself.

use super::{BLOCK, RECORD, capability, header::NAME_LEN};
use crate::layer::tree::Xattrs;

/// Prefix under which Go, GNU tar and libarchive keep extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const COMMENT: &[u8] = b"comment";
/// Says that the names in the records are no UTF-8; libarchive needs it.
const CHARSET: &[u8] = b"hdrcharset";
const BINARY: &[u8] = b"BINARY";
/// What a gap is filled with: no digit, because Python's tarfile searches runs of digits in
/// quadratic time.
const FILLER: u8 = b'.';
/// Shortest comment record, `12 comment=\n`.
const MIN_COMMENT: u64 = 12;

/// Longest extended header, in bytes (Go refuses longer ones, too).
pub(super) const MAX_RECORDS: u64 = 1 << 20;
/// Longest value of an extended attribute (Linux `XATTR_SIZE_MAX`).
pub(super) const MAX_XATTR: usize = 1 << 16;
/// Longest name of an extended attribute (Linux `XATTR_NAME_MAX`).
pub(super) const MAX_XATTR_NAME: usize = 255;

/// Appends one record.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + digits(len) {
        len = rest + digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends the records of those of a member's name and link target that its header cannot hold.
pub(super) fn push_names(out: &mut Vec<u8>, name: &[u8], link: &[u8]) {
    let long = [(b"path".as_slice(), name), (b"linkpath", link)].into_iter().filter(|(_, text)| text.len() > NAME_LEN);
    if long.clone().any(|(_, text)| std::str::from_utf8(text).is_err()) {
        push(out, CHARSET, BINARY);
    }
    long.for_each(|(key, text)| push(out, key, text));
}

/// Appends one record for each extended attribute, capabilities as revision 2.
///
/// # Errors
/// The name of an attribute that no record can hold, or whose capability set is malformed.
pub(super) fn push_xattrs(out: &mut Vec<u8>, xattrs: &Xattrs) -> Result<(), Vec<u8>> {
    for (name, value) in xattrs {
        let fits = (1..=MAX_XATTR_NAME).contains(&name.len()) && value.len() <= MAX_XATTR;
        if !fits || name.iter().any(|byte| b"=\0".contains(byte)) {
            return Err(name.clone());
        }
        let key = [XATTR_PREFIX, name].concat();
        if name == capability::NAME {
            push(out, &key, &capability::normalise(value).ok_or_else(|| name.clone())?);
        } else {
            push(out, &key, value);
        }
        if out.len() as u64 > MAX_RECORDS - 3 * BLOCK {
            return Err(name.clone());
        }
    }
    Ok(())
}

/// Brings the values into the form in which [`push_xattrs`] writes them.
pub(super) fn normalise_xattrs(xattrs: &mut Xattrs) {
    if let Some(value) = xattrs.get_mut(capability::NAME)
        && let Some(plain) = capability::normalise(value)
    {
        *value = plain.into_owned();
    }
}

/// Appends a comment that makes the records `len` bytes longer in all; `len` ≥ 12.
pub(super) fn push_filler(out: &mut Vec<u8>, len: u64) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let filler = len.saturating_sub(digits(len) + COMMENT.len() + 3);
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(COMMENT);
    out.push(b'=');
    out.resize(out.len() + filler, FILLER);
    out.push(b'\n');
}

/// How long a comment must be so that data begins on a block: for an extended header at `at` whose
/// other records are `records` bytes long. Zero if none is needed.
pub(super) fn filler_len(at: u64, records: u64) -> u64 {
    let headers = if records == 0 { RECORD } else { 2 * RECORD + records.next_multiple_of(RECORD) };
    if (at + headers).is_multiple_of(BLOCK) {
        return 0;
    }
    let least = at + 2 * RECORD + (records + MIN_COMMENT).next_multiple_of(RECORD);
    least.next_multiple_of(BLOCK) - at - 2 * RECORD - records
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// What the records of one extended header said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub binary: bool,
    pub xattrs: Xattrs,
}

/// Reads all records; each key may come once, and only those that a layer uses.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, &'static str> {
    const MALFORMED: &str = "its extended header is malformed";
    let mut records = Records::default();
    let mut commented = false;
    while !data.is_empty() {
        let space = data.iter().take(8).position(|&byte| byte == b' ').ok_or(MALFORMED)?;
        let (length, _) = data.split_at_checked(space).ok_or(MALFORMED)?;
        if !length.first().is_some_and(|byte| (b'1'..=b'9').contains(byte)) {
            return Err(MALFORMED);
        }
        let length: usize = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok()).ok_or(MALFORMED)?;
        let (record, rest) = data.split_at_checked(length).ok_or(MALFORMED)?;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or(MALFORMED)?;
        let equals = body.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
        let (key, value) = body.split_at_checked(equals).ok_or(MALFORMED)?;
        let value = value.get(1..).unwrap_or_default();
        let fresh = match key {
            b"path" => records.path.replace(value.to_vec()).is_none(),
            b"linkpath" => records.link.replace(value.to_vec()).is_none(),
            CHARSET if value == BINARY => !std::mem::replace(&mut records.binary, true),
            COMMENT => !std::mem::replace(&mut commented, true),
            _ => {
                let name = key.strip_prefix(XATTR_PREFIX).filter(|name| !name.is_empty());
                let name = name.ok_or("its extended header has a record that no layer uses")?;
                records.xattrs.insert(name.to_vec(), value.to_vec()).is_none()
            }
        };
        if !fresh {
            return Err("its extended header says one thing twice");
        }
        data = rest;
    }
    let names = [&records.path, &records.link];
    if records.binary != names.into_iter().flatten().any(|text| std::str::from_utf8(text).is_err()) {
        return Err("its extended header is wrong about its character set");
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_its_own_digits() {
        let mut out = Vec::new();
        push(&mut out, b"path", &[b'a'; 89]);
        assert_eq!(out.len(), 98);
        assert!(out.starts_with(b"98 path="));
        out.clear();
        push(&mut out, b"path", &[b'a'; 91]);
        assert!(out.starts_with(b"101 path="), "{}", out.escape_ascii());
        assert_eq!(out.len(), 101);
    }

    #[test]
    fn filler_brings_data_to_a_block() {
        for records in [0_u64, 5, 500, 501, 512, 1000, 4090] {
            for at in (0..16_u64).map(|record| record * RECORD) {
                let filler = filler_len(at, records);
                let all = records + filler;
                let headers = if all == 0 { RECORD } else { 2 * RECORD + all.next_multiple_of(RECORD) };
                assert_eq!((at + headers) % BLOCK, 0, "at {at}, {records} bytes of records");
                let mut out = Vec::new();
                if filler > 0 {
                    push_filler(&mut out, filler);
                    assert_eq!(parse(&out), Ok(Records::default()));
                }
                assert_eq!(out.len() as u64, filler);
            }
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let refused: [&[u8]; 9] = [
            b"1",
            b"99 path=a\n",
            b"9 path=a\n9 path=b\n",
            b"0 path=a\n",
            b"09 path=a",
            b"8 path=a\n",
            b"11 size=12\n",
            b"-1 path=a\n",
            b"18446744073709551616 path=a\n",
        ];
        for records in refused {
            assert!(parse(records).is_err(), "{}", records.escape_ascii());
        }
    }
}
