//! The one tar header that an artifact's members have (POSIX.1-1988 ustar, GNU base-256 for sizes over 8 GiB).
//!
//! Every field but name, size and checksum is fixed, so a header can be generated and compared instead of interpreted.

/// Bytes in a header, and the unit that member data is padded to.
pub const HEADER_LEN: usize = 512;

/// Bytes at the end of the first header that carry the protective MBR (its offset 446 to 511).
pub const MBR_LEN: usize = 66;

/// Longest member name, in bytes.
pub const MAX_PATH: usize = 100;

/// 1980-01-01T00:00:00Z, the modification time of every member: the first that FAT, ZIP and tar can all express.
const MTIME: u64 = 315_532_800;

/// Sizes from here on are written in base 256.
const OCTAL_LIMIT: u64 = 1 << 33;

/// A member's header.
///
/// `mbr` is put in bytes 446 to 511 (only the first member of a disk has one) and the checksum is taken over it.
/// `None` when the name is empty, longer than [`MAX_PATH`] or not printable ASCII.
pub fn encode(path: &str, size: u64, mbr: Option<&[u8; MBR_LEN]>) -> Option<[u8; HEADER_LEN]> {
    if path.is_empty() || path.len() > MAX_PATH || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = Vec::with_capacity(HEADER_LEN);
    let mut field = |bytes: &[u8], len: usize| {
        header.extend_from_slice(bytes);
        header.extend(std::iter::repeat_n(0, len.saturating_sub(bytes.len())));
    };
    field(path.as_bytes(), 100);
    field(b"0000644", 8);
    field(b"0000000", 8);
    field(b"0000000", 8);
    field(&encode_size(size), 12);
    field(format!("{MTIME:011o}").as_bytes(), 12);
    field(b"        ", 8);
    field(b"0", 1);
    field(b"", 100);
    field(b"ustar\x0000", 8);
    field(b"", 64);
    field(b"0000000", 8);
    field(b"0000000", 8);
    field(b"", 101);
    field(mbr.map_or(&[], |mbr| mbr.as_slice()), MBR_LEN);
    let mut header: [u8; HEADER_LEN] = header.try_into().ok()?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.get_mut(148..156)?.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}

fn encode_size(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if size < OCTAL_LIMIT {
        for (slot, digit) in field.iter_mut().zip(format!("{size:011o}").bytes()) {
            *slot = digit;
        }
    } else {
        for (slot, byte) in field.iter_mut().rev().zip(size.to_le_bytes()) {
            *slot = byte;
        }
        if let Some(first) = field.first_mut() {
            *first = 0x80;
        }
    }
    field
}

/// Name and size of a header, if it is one that [`encode`] makes; the first header of a disk keeps its MBR.
pub fn decode(header: &[u8; HEADER_LEN]) -> Option<(String, u64)> {
    let (name, _) = header.split_first_chunk::<MAX_PATH>()?;
    let name = name.split(|byte| *byte == 0).next()?;
    let path = std::str::from_utf8(name).ok()?;
    let size = decode_size(header.get(124..136)?)?;
    let mbr = header.last_chunk::<MBR_LEN>()?;
    let mbr = if mbr.iter().any(|byte| *byte != 0) { Some(mbr) } else { None };
    if encode(path, size, mbr)? == *header { Some((path.to_owned(), size)) } else { None }
}

fn decode_size(field: &[u8]) -> Option<u64> {
    if field.first() == Some(&0x80) {
        return Some(u64::from_be_bytes(*field.last_chunk()?));
    }
    let digits = std::str::from_utf8(field.get(..11)?).ok()?;
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { u64::from_str_radix(digits, 8).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_what_gnu_tar_writes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("oci-layout"), [0; 30]).unwrap();
        let options =
            ["--format=ustar", "--numeric-owner", "--owner=0", "--group=0", "--mode=0644", "--mtime=@315532800"];
        let mut tar = std::process::Command::new("tar");
        let Ok(output) = tar.args(options).args(["-cf", "-", "oci-layout"]).current_dir(folder.path()).output() else {
            return; // the tool is not installed here
        };
        assert_eq!(encode("oci-layout", 30, None).unwrap(), output.stdout[..HEADER_LEN]);
    }

    #[test]
    fn a_size_over_eight_gibibytes_is_base_256() {
        let header = encode("x", OCTAL_LIMIT, None).unwrap();
        assert_eq!(&header[124..136], &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let header = encode("x", OCTAL_LIMIT - 1, None).unwrap();
        assert_eq!(&header[124..136], b"77777777777\0");
    }

    #[test]
    fn names_that_readers_may_see_differently_are_refused() {
        for name in ["", "a\0b", "a b", "é", "a\n", &"x".repeat(101)] {
            assert_eq!(encode(name, 0, None), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(path in "[!-~]{1,100}", size: u64, mbr: Option<[u8; 32]>) {
            let mbr = mbr.map(|half| { let mut whole = [1; MBR_LEN]; whole[..32].copy_from_slice(&half); whole });
            let header = encode(&path, size, mbr.as_ref()).unwrap();
            prop_assert_eq!(decode(&header), Some((path, size)));
        }

        #[test]
        fn one_changed_byte_outside_the_name_is_no_header(size: u64, at in 0..HEADER_LEN, change in 1u8..) {
            let mut header = encode("index.json", size, None).unwrap();
            header[at] ^= change;
            prop_assert_eq!(decode(&header), None);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), HEADER_LEN)) {
            let header: [u8; HEADER_LEN] = bytes.try_into().unwrap();
            if let Some((path, size)) = decode(&header) {
                prop_assert_eq!(encode(&path, size, None).unwrap()[..446].to_vec(), header[..446].to_vec());
            }
        }
    }
}
