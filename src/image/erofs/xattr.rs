//! Extended attributes as EROFS keeps them behind the inode (`erofs_xattr_ibody_header` and entries).

use crate::layer::tree::Xattrs;

/// Length of the header of an inode's xattr area.
const HEADER_LEN: usize = 12;
/// Entries are padded to this.
const UNIT: usize = 4;

/// Name prefixes and their numbers. An access control list has no name beyond its prefix.
const PREFIXES: [(&[u8], u8, bool); 5] = [
    (b"user.", 1, true),
    (b"system.posix_acl_access", 2, false),
    (b"system.posix_acl_default", 3, false),
    (b"trusted.", 4, true),
    (b"security.", 6, true),
];

/// Why an attribute cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The name has no known prefix, or nothing or too much after it.
    #[error("the extended attribute {0:?} is of no kind that EROFS stores (user, trusted, security, POSIX ACL)")]
    Name(String),
    /// The value is longer than 65535 bytes.
    #[error("the extended attribute {0:?} is longer than 65535 bytes")]
    Value(String),
    /// All attributes of one inode together are too long.
    #[error("the extended attributes together take {0} bytes; EROFS stores at most 262144 for one file")]
    Total(usize),
}

/// The xattr area of an inode: header and entries in the order of the names; empty without attributes.
///
/// # Errors
/// [`XattrError`] if an attribute cannot be stored.
pub fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, XattrError> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; HEADER_LEN];
    for (name, value) in xattrs {
        let shown = || name.escape_ascii().to_string();
        let (index, rest) = split(name).ok_or_else(|| XattrError::Name(shown()))?;
        let name_len = u8::try_from(rest.len()).map_err(|_| XattrError::Name(shown()))?;
        let value_len = u16::try_from(value.len()).map_err(|_| XattrError::Value(shown()))?;
        out.extend([name_len, index]);
        out.extend(value_len.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(UNIT), 0);
    }
    if units(&out).is_none() {
        return Err(XattrError::Total(out.len()));
    }
    Ok(out)
}

/// Length of an encoded area as the inode's `i_xattr_icount` gives it; `None` if it is too long for that.
pub fn units(area: &[u8]) -> Option<u16> {
    match area.len().checked_sub(HEADER_LEN) {
        None => Some(0),
        Some(entries) => u16::try_from(entries / UNIT + 1).ok(),
    }
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|&(prefix, index, named)| {
        let rest = name.strip_prefix(prefix)?;
        (rest.is_empty() != named && !rest.contains(&0)).then_some((index, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &[u8]) -> Xattrs {
        [(name.into(), value.to_vec())].into()
    }

    #[test]
    fn an_attribute_is_prefix_number_name_and_value_padded() {
        let area = encode(&one("user.note", b"hello")).unwrap();
        assert_eq!(area[12..], *b"\x04\x01\x05\x00notehello\0\0\0");
        assert_eq!(units(&area), Some(5));
        assert_eq!(units(&[]), Some(0));
    }

    #[test]
    fn a_posix_acl_has_no_name() {
        let area = encode(&one("system.posix_acl_access", &[2, 0, 0, 0])).unwrap();
        assert_eq!(area[12..], [0, 2, 4, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn attributes_that_cannot_be_stored_are_refused() {
        for name in ["btrfs.compression", "user.", "system.posix_acl_accessory", "security.a\0b", "system.nfs4_acl"] {
            assert!(matches!(encode(&one(name, b"")), Err(XattrError::Name(_))), "{name}");
        }
        assert!(matches!(encode(&one(&format!("user.{}", "x".repeat(256)), b"")), Err(XattrError::Name(_))));
        assert!(matches!(encode(&one("user.big", &[0; 65536])), Err(XattrError::Value(_))));
        let many: Xattrs = (0..5).map(|n| (format!("user.{n}").into_bytes(), vec![0; 60000])).collect();
        assert!(matches!(encode(&many), Err(XattrError::Total(_))));
    }
}
