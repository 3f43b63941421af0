//! The on-disk structures of EROFS that the writer uses, each encoded field by field, little-endian.
//!
//! Specification: the kernel's documentation of EROFS ("On-disk details") and its `erofs_fs.h`. Kernels from 5.16
//! read what is used here: extended inodes, the device table, chunk-based files.

/// Size of a file system block in bytes.
pub const BLOCK: u64 = 4096;
/// Logarithm of [`BLOCK`].
const BLOCK_BITS: u8 = 12;
/// Place of the superblock.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Length of the superblock.
pub const SUPERBLOCK_LEN: u64 = 128;
/// Length of an entry of the device table, and the unit its place is given in.
pub const DEVICE_SLOT_LEN: u64 = 128;
/// Inodes lie on multiples of this; an inode's number ("nid") is its offset divided by it.
pub const INODE_SLOT: u64 = 32;
/// Length of an extended inode.
pub const INODE_LEN: u64 = 64;
/// Length of a chunk index; the array of them is aligned to it.
pub const CHUNK_INDEX_LEN: u64 = 8;
/// Length of a directory entry without its name.
pub const DIRENT_LEN: usize = 12;
/// Largest chunk, as a logarithm of the number of blocks.
pub const CHUNK_BITS_MAX: u32 = 31;
/// Largest major number that an inode can hold.
pub const MAJOR_MAX: u32 = (1 << 12) - 1;
/// Largest minor number that an inode can hold.
pub const MINOR_MAX: u32 = (1 << 20) - 1;

const MAGIC: u32 = 0xE0F5_E1E2;
/// Times are modification times.
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
const VOLUME_NAME: &[u8; 16] = b"gapimage\0\0\0\0\0\0\0\0";

/// The superblock. Fields that are not here are zero: no checksum (dm-verity covers every block), no UUID,
/// build time 1970, metadata from block 0.
pub struct Superblock {
    /// Number of the root directory.
    pub root_nid: u16,
    /// Number of inodes.
    pub inodes: u64,
    /// Blocks of the metadata blob itself.
    pub blocks: u32,
    /// Entries of the device table, which follows the superblock.
    pub devices: u16,
}

impl Superblock {
    /// The 128 bytes at [`SUPERBLOCK_OFFSET`].
    pub fn encode(&self) -> Vec<u8> {
        let table = if self.devices == 0 { 0 } else { (SUPERBLOCK_OFFSET + SUPERBLOCK_LEN) / DEVICE_SLOT_LEN };
        let mut out = Vec::with_capacity(128);
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]); // checksum
        out.extend(COMPAT_MTIME.to_le_bytes());
        out.extend([BLOCK_BITS, 0]); // no superblock extensions
        out.extend(self.root_nid.to_le_bytes());
        out.extend(self.inodes.to_le_bytes());
        out.extend([0; 12]); // build time, its nanoseconds
        out.extend(self.blocks.to_le_bytes());
        out.extend([0; 8]); // first blocks of the metadata and of shared xattrs
        out.extend([0; 16]); // UUID
        out.extend(VOLUME_NAME);
        out.extend((INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
        out.extend([0; 2]); // compression
        out.extend(self.devices.to_le_bytes());
        out.extend(u16::try_from(table).unwrap_or_default().to_le_bytes());
        out.resize(128, 0);
        out
    }
}

/// An entry of the device table.
pub struct DeviceSlot {
    /// A name for people, at most 63 bytes.
    pub tag: String,
    /// Blocks of the device.
    pub blocks: u32,
    /// Where the device's first block lies in the unified address space, in which the metadata blob comes first.
    pub mapped_block: u32,
}

impl DeviceSlot {
    /// The 128 bytes of the slot.
    pub fn encode(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.tag.bytes().take(63).collect();
        out.resize(64, 0);
        out.extend(self.blocks.to_le_bytes());
        out.extend(self.mapped_block.to_le_bytes());
        out.resize(128, 0);
        out
    }
}

/// How an inode's data is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Whole blocks in a row.
    FlatPlain = 0,
    /// Whole blocks in a row, and the last, partial one right behind the inode.
    FlatInline = 2,
    /// An array of chunk indexes behind the inode.
    ChunkBased = 4,
}

/// File type bits of a mode, and the same in a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Regular file.
    Regular = 1,
    /// Directory.
    Directory = 2,
    /// Character device.
    CharDevice = 3,
    /// Block device.
    BlockDevice = 4,
    /// Named pipe.
    Fifo = 5,
    /// Symbolic link.
    Symlink = 7,
}

impl FileType {
    /// The type as bits of `st_mode`.
    pub const fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// An extended inode.
pub struct InodeRecord {
    /// Layout of the data.
    pub layout: Layout,
    /// Length of the xattr area in its own unit, see [`xattr_units`].
    pub xattr_units: u16,
    /// File type.
    pub file_type: FileType,
    /// Permission bits; higher ones are cut off.
    pub mode: u32,
    /// Length of the data in bytes.
    pub size: u64,
    /// First block, chunk format or device number, as layout and type want it.
    pub place: u32,
    /// A small number for 32-bit `stat`.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Number of links.
    pub links: u32,
}

impl InodeRecord {
    /// The 64 bytes of the inode.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend((1 | (self.layout as u16) << 1).to_le_bytes()); // bit 0: extended
        out.extend(self.xattr_units.to_le_bytes());
        let permissions = u16::try_from(self.mode & 0o7777).unwrap_or_default();
        out.extend((self.file_type.mode_bits() | permissions).to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.size.to_le_bytes());
        out.extend(self.place.to_le_bytes());
        out.extend(self.ino.to_le_bytes());
        out.extend(self.uid.to_le_bytes());
        out.extend(self.gid.to_le_bytes());
        out.extend(self.mtime.to_le_bytes());
        out.extend([0; 4]); // nanoseconds
        out.extend(self.links.to_le_bytes());
        out.resize(64, 0);
        out
    }
}

/// A device number as the kernel's `new_encode_dev` packs it; `None` if it is too large for that.
pub fn device_number(major: u32, minor: u32) -> Option<u32> {
    (major <= MAJOR_MAX && minor <= MINOR_MAX).then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// The chunk format of files whose chunks have `1 << bits` blocks and 8-byte indexes.
pub const fn chunk_format(bits: u32) -> u32 {
    const WITH_INDEXES: u32 = 0x20;
    (bits & 0x1f) | WITH_INDEXES
}

/// Where one chunk of a file lies.
pub struct ChunkIndex {
    /// 0 for the metadata blob, else the slot of the device table, counted from 1.
    pub device: u16,
    /// Its first block on that device.
    pub block: u32,
}

impl ChunkIndex {
    /// The 8 bytes of the index.
    pub fn encode(&self) -> [u8; 8] {
        let [d0, d1] = self.device.to_le_bytes();
        let [b0, b1, b2, b3] = self.block.to_le_bytes();
        [0, 0, d0, d1, b0, b1, b2, b3]
    }
}

/// The fixed part of a directory entry.
pub struct Dirent {
    /// Number of the inode.
    pub nid: u64,
    /// Where the name starts within the directory block.
    pub name_offset: u16,
    /// Type of the inode.
    pub file_type: FileType,
}

impl Dirent {
    /// Appends the 12 bytes of the entry.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend(self.nid.to_le_bytes());
        out.extend(self.name_offset.to_le_bytes());
        out.extend([self.file_type as u8, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_lengths_of_the_specification() {
        let superblock = Superblock { root_nid: 40, inodes: 3, blocks: 2, devices: 1 }.encode();
        assert_eq!(superblock.len() as u64, SUPERBLOCK_LEN);
        assert_eq!(superblock[80..84], 0xcu32.to_le_bytes(), "incompatible features lie at byte 80");
        assert_eq!(superblock[86..90], [1, 0, 9, 0], "one device, its slot at 9 × 128");
        let slot = DeviceSlot { tag: "x".repeat(80), blocks: 7, mapped_block: 2 }.encode();
        assert_eq!((slot.len() as u64, slot[63], slot[64]), (DEVICE_SLOT_LEN, 0, 7));
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        assert_eq!(device_number(5, 1), Some(0x501));
        assert_eq!(device_number(259, 300), Some((300 & 0xff) | (259 << 8) | (256 << 12)));
        assert_eq!(device_number(4096, 0), None);
        assert_eq!(device_number(0, 1 << 20), None);
    }
}
