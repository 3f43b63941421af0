//! The partition tables that make an artifact a disk (UEFI 2.10, section 5: protective MBR and GPT).
//!
//! One file, two GPTs: for a disk with 512-byte sectors the header is at byte 512, for one with 4096-byte sectors at
//! byte 4096. Both list the same two partitions, the EFI system partition and the payload, at the same bytes.

use crate::{Digest, tar_header::MBR_LEN};
use sha2::{Digest as _, Sha256};

/// Where the first member's data begins: right after its header.
pub const PRIMARY_OFFSET: u64 = 512;

/// Bytes of the `.gpt` member: from byte 512 to 40960.
pub const PRIMARY_LEN: u64 = USABLE_START - PRIMARY_OFFSET;

/// Bytes of the backup tables at the very end of the file.
pub const BACKUP_LEN: u64 = 2 * ENTRIES_LEN + 4096;

/// First byte that a partition may use: both primary tables lie before it.
const USABLE_START: u64 = 40_960;
const ENTRY_COUNT: u32 = 128;
const ENTRY_LEN: u32 = 128;
const ENTRIES_LEN: u64 = 16_384;
const HEADER_LEN: u32 = 92;

/// The EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const ESP_TYPE: [u8; 16] = guid(0xC12A_7328, 0xF81F, 0x11D2, 0xBA4B, 0x00A0_C93E_C93B);

/// The payload of an artifact, 8F6B4D2E-3C1A-4E57-9B70-6761_70696D67: known to no system, so mounted by none.
const PAYLOAD_TYPE: [u8; 16] = guid(0x8F6B_4D2E, 0x3C1A, 0x4E57, 0x9B70, 0x6761_7069_6D67);

/// A GUID in the mixed byte order of UEFI: three little-endian fields, then eight bytes as written.
const fn guid(a: u32, b: u16, c: u16, d: u16, e: u64) -> [u8; 16] {
    let (a, b, c, d, e) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes(), e.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], e[2], e[3], e[4], e[5], e[6], e[7]]
}

/// What the tables say; all lengths and offsets in bytes and multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Length of the whole file.
    pub total: u64,
    /// First byte of the EFI system partition.
    pub esp_offset: u64,
    /// Length of the EFI system partition.
    pub esp_len: u64,
    /// Digest of `index.json`, from which every GUID derives.
    pub index: Digest,
}

/// Place of one GPT copy and of its counterpart, in bytes.
struct Copy {
    sector: u64,
    header: u64,
    entries: u64,
    other_header: u64,
}

impl Disk {
    /// Partition entries and signature of the protective MBR: bytes 446 to 511 of the disk.
    pub fn mbr(&self) -> [u8; MBR_LEN] {
        let mut mbr = [0; MBR_LEN];
        let sectors = u32::try_from(self.total / 512 - 1).unwrap_or(u32::MAX);
        let mut entry = vec![0, 0x00, 0x02, 0x00, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0];
        entry.extend(sectors.to_le_bytes());
        put(&mut mbr, 0, &entry);
        put(&mut mbr, MBR_LEN - 2, &[0x55, 0xAA]);
        mbr
    }

    /// Data of the `.gpt` member: both primary tables ([`PRIMARY_LEN`] bytes from [`PRIMARY_OFFSET`]).
    pub fn primary(&self) -> Vec<u8> {
        let mut area = vec![0; usize::try_from(PRIMARY_LEN).unwrap_or(0)];
        for (sector, header, entries) in [(512, 512, 24_576), (4096, 4096, 8192)] {
            let copy = Copy { sector, header, entries, other_header: self.total - sector };
            self.put_copy(&mut area, PRIMARY_OFFSET, &copy);
        }
        area
    }

    /// The last [`BACKUP_LEN`] bytes of the file: both backup tables.
    pub fn backup(&self) -> Vec<u8> {
        let start = self.usable_end();
        let mut area = vec![0; usize::try_from(BACKUP_LEN).unwrap_or(0)];
        for (sector, entries) in [(512, start), (4096, start + ENTRIES_LEN)] {
            let copy = Copy { sector, header: self.total - sector, entries, other_header: sector };
            self.put_copy(&mut area, start, &copy);
        }
        area
    }

    /// First byte of the backup tables.
    const fn usable_end(&self) -> u64 {
        self.total - BACKUP_LEN
    }

    fn put_copy(&self, area: &mut [u8], area_start: u64, copy: &Copy) {
        let entries = self.entries(copy.sector);
        let header = self.header(copy, crc32(&entries));
        for (offset, bytes) in [(copy.header, &header), (copy.entries, &entries)] {
            put(area, usize::try_from(offset - area_start).unwrap_or(usize::MAX), bytes);
        }
    }

    /// One GPT header (UEFI 2.10, table 5.5).
    fn header(&self, copy: &Copy, entries_crc: u32) -> Vec<u8> {
        let lba = |byte: u64| (byte / copy.sector).to_le_bytes();
        let mut header = Vec::new();
        header.extend(b"EFI PART");
        header.extend(0x0001_0000_u32.to_le_bytes());
        header.extend(HEADER_LEN.to_le_bytes());
        header.extend([0; 8]);
        header.extend(lba(copy.header));
        header.extend(lba(copy.other_header));
        header.extend(lba(USABLE_START));
        header.extend(lba(self.usable_end() - copy.sector));
        header.extend(self.derived_guid("disk"));
        header.extend(lba(copy.entries));
        header.extend(ENTRY_COUNT.to_le_bytes());
        header.extend(ENTRY_LEN.to_le_bytes());
        header.extend(entries_crc.to_le_bytes());
        let crc = crc32(&header);
        put(&mut header, 16, &crc.to_le_bytes());
        header
    }

    /// The partition entries (UEFI 2.10, table 5.6): system partition, then the payload behind it.
    fn entries(&self, sector: u64) -> Vec<u8> {
        let payload = self.esp_offset + self.esp_len;
        let partitions = [
            (ESP_TYPE, "esp", self.esp_offset, payload, "gapimage boot"),
            (PAYLOAD_TYPE, "payload", payload, self.usable_end(), "gapimage payload"),
        ];
        let mut entries = Vec::new();
        for (kind, purpose, start, end, name) in partitions {
            entries.extend(kind);
            entries.extend(self.derived_guid(purpose));
            entries.extend((start / sector).to_le_bytes());
            entries.extend((end / sector - 1).to_le_bytes());
            entries.extend([0; 8]);
            let name_field = entries.len() + 72;
            entries.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
            entries.resize(name_field, 0);
        }
        entries.resize(usize::try_from(ENTRIES_LEN).unwrap_or(0), 0);
        entries
    }

    /// A GUID (RFC 9562, version 8) that is the same for the same index: SHA-256 of `gapimage guid <purpose>`, a line
    /// feed and the 32 bytes of the digest, cut to 16 bytes.
    fn derived_guid(&self, purpose: &str) -> [u8; 16] {
        let hasher =
            Sha256::new().chain_update(format!("gapimage guid {purpose}\n")).chain_update(self.index.as_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let mut guid = [0; 16];
        for (slot, byte) in guid.iter_mut().zip(hash) {
            *slot = byte;
        }
        // In the mixed byte order the version is in the high half of byte 7, the variant in the top of byte 8.
        if let Some(byte) = guid.get_mut(7) {
            *byte = *byte & 0x0F | 0x80;
        }
        if let Some(byte) = guid.get_mut(8) {
            *byte = *byte & 0x3F | 0x80;
        }
        guid
    }
}

/// Copies `bytes` to `offset` of `area`; what would not fit is left out.
fn put(area: &mut [u8], offset: usize, bytes: &[u8]) {
    for (slot, byte) in area.iter_mut().skip(offset).zip(bytes) {
        *slot = *byte;
    }
}

/// CRC-32 as UEFI uses it (ISO 3309, reflected, polynomial 0x04C11DB7).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        crc >> 8 ^ CRC_TABLE.get(usize::from(low)).copied().unwrap_or(0)
    })
}

/// What each value of a byte adds to the CRC.
static CRC_TABLE: [u32; 256] = crc_table();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler; an index out of bounds does not compile")]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut value = 0_u32;
    while value < 256 {
        let (mut crc, mut bit) = (value, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[value as usize] = crc;
        value += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk =
        Disk { total: 16 << 20, esp_offset: 1 << 20, esp_len: 8 << 20, index: Digest::from_bytes([7; 32]) };

    fn disk_image() -> Vec<u8> {
        let mut image = vec![0; DISK.total as usize];
        put(&mut image, 446, &DISK.mbr());
        put(&mut image, 512, &DISK.primary());
        put(&mut image, (DISK.total - BACKUP_LEN) as usize, &DISK.backup());
        image
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn headers_and_entries_lie_where_both_sector_sizes_look() {
        let image = disk_image();
        for offset in [512, 4096, image.len() - 512, image.len() - 4096] {
            assert_eq!(&image[offset..offset + 8], b"EFI PART", "at {offset}");
        }
        for offset in [8192, 24_576, image.len() - BACKUP_LEN as usize, image.len() - 20_480] {
            assert_eq!(&image[offset..offset + 16], &ESP_TYPE, "at {offset}");
        }
    }

    #[test]
    fn sgdisk_finds_no_problem() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk_image()).unwrap();
        let Ok(output) = std::process::Command::new("sgdisk").arg("-v").arg("-p").arg(file.path()).output() else {
            return; // the tool is not installed here
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("No problems found"), "{text}");
        assert!(text.contains("gapimage payload"), "{text}");
    }

    #[test]
    fn another_index_gives_other_guids() {
        let other = Disk { index: Digest::from_bytes([8; 32]), ..DISK };
        assert_ne!(DISK.derived_guid("disk"), other.derived_guid("disk"));
        assert_ne!(DISK.derived_guid("disk"), DISK.derived_guid("esp"));
    }
}
