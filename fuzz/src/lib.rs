//! What several fuzz targets share.

/// Where the magic stands in a tar header (ustar, POSIX.1-2001 `pax`).
const MAGIC_AT: usize = 257;
/// Length of a tar header.
const HEADER: usize = 512;
/// Where the checksum stands, and its length.
const SUM: std::ops::Range<usize> = 148..156;

/// Makes the checksum of everything that looks like a tar header right, wherever it begins. Nearly no change of a tar
/// gets past its checksums, so without this only they would be tested.
pub fn mend_tar_checksums(bytes: &mut [u8]) {
    let headers: Vec<usize> = bytes
        .windows(5)
        .enumerate()
        .filter(|&(_, window)| window == b"ustar")
        .filter_map(|(at, _)| at.checked_sub(MAGIC_AT))
        .collect();
    for start in headers {
        let Some(header) = bytes.get_mut(start..start + HEADER) else { continue };
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Puts changes into `bytes`: each is two bytes of offset (little-endian, taken modulo the length) and one byte to put
/// there.
pub fn change(bytes: &mut [u8], changes: &[u8]) {
    let len = bytes.len();
    for change in changes.chunks_exact(3) {
        bytes[usize::from(u16::from_le_bytes([change[0], change[1]])) % len] = change[2];
    }
}
