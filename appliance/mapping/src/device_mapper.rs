//! Device-mapper: slices of a device, and devices whose every read is checked.
//!
//! The requests follow linux/dm-ioctl.h (version 4); the tables follow the kernel's documents `dm-linear` and `verity`.
//! Only what is needed is here: create a read-only device with one target, find it again, and remove it.

use gap_format::Digest;
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use crate::ioctl::{self, DM_HEADER};

const DM_DEV_CREATE: u8 = 3;
const DM_DEV_REMOVE: u8 = 4;
const DM_DEV_SUSPEND: u8 = 6;
const DM_TABLE_LOAD: u8 = 9;
const DM_TABLE_STATUS: u8 = 12;
const DM_READONLY_FLAG: u32 = 1;
/// Asks for the table itself and not for its state.
const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
/// Room for the answer with a table of one target.
const TABLE_ROOM: usize = 4096;
/// Longest name, without the NUL (`DM_NAME_LEN` - 1).
const MAX_NAME: usize = 127;
/// Length of `struct dm_target_spec`.
const TARGET_SPEC: usize = 40;
/// Sectors of device-mapper are 512 bytes on every device.
pub const SECTOR: u64 = 512;
/// Blocks of the hash trees.
pub const BLOCK: u64 = gap_format::verity::BLOCK;

/// The kinds of targets that are made here.
const KINDS: [&str; 2] = ["linear", "verity"];

/// Numbers of a block device, written `major:minor` in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of a table that covers the whole device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    sectors: u64,
    kind: &'static str,
    parameters: String,
}

impl Target {
    /// `len` bytes of `device` from `offset` (dm-linear). Both are multiples of [`SECTOR`].
    pub fn slice(device: Number, offset: u64, len: u64) -> Self {
        Self { sectors: len / SECTOR, kind: "linear", parameters: format!("{device} {}", offset / SECTOR) }
    }

    /// The first `len` bytes of `data`, each read checked up to `root` through the tree that begins at `tree_offset`
    /// of `tree` (dm-verity version 1, SHA-256, blocks of 4096, no salt, no superblock). A block that fails the check
    /// gives a read error. `len` and `tree_offset` are multiples of [`BLOCK`].
    pub fn verity(data: Number, len: u64, tree: Number, tree_offset: u64, root: &Digest) -> Self {
        let blocks = len / BLOCK;
        let start = tree_offset / BLOCK;
        Self {
            sectors: len / SECTOR,
            kind: "verity",
            parameters: format!("1 {data} {tree} {BLOCK} {BLOCK} {blocks} {start} sha256 {} -", root.to_hex()),
        }
    }
}

/// A device that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Name inside device-mapper.
    pub name: String,
    /// Its numbers.
    pub number: Number,
    /// Its node (`/dev/dm-3`).
    pub node: PathBuf,
}

/// `/dev/mapper/control`.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    /// Opens `dev/mapper/control`.
    ///
    /// # Errors
    /// What the kernel answered; not found when the module `dm_mod` is not there.
    pub fn open_from(root: &Path) -> io::Result<Self> {
        Self::open_at(&root.join("dev/mapper/control"))
    }

    pub(crate) fn open_at(node: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(node).map(Self)
    }

    /// Creates a read-only device and makes it ready for use. Nothing is left behind when that fails.
    ///
    /// # Errors
    /// What the kernel answered; `EBUSY` when there is one of that name.
    pub fn create(&self, name: &str, target: &Target) -> io::Result<Mapped> {
        let mut request = request(name, 0, None)?;
        self.command(DM_DEV_CREATE, &mut request)?;
        let number = number_in(&request)?;
        if let Err(error) = self.load(name, target) {
            drop(self.remove(name));
            return Err(error);
        }
        Ok(Mapped { name: name.into(), number, node: node_of(number) })
    }

    /// Removes a device that nothing uses any more.
    ///
    /// # Errors
    /// What the kernel answered; `EBUSY` when it is in use.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.command(DM_DEV_REMOVE, &mut request(name, 0, None)?)
    }

    /// The device of this name if it is read-only and its live table is just this target.
    ///
    /// # Errors
    /// What the kernel answered; not found when there is no such device.
    pub fn existing(&self, name: &str, target: &Target) -> io::Result<Option<Mapped>> {
        let mut answer = request(name, DM_STATUS_TABLE_FLAG, None)?;
        answer.resize(DM_HEADER + TABLE_ROOM, 0);
        self.command(DM_TABLE_STATUS, &mut answer)?;
        let number = number_in(&answer)?;
        let mapped = Mapped { name: name.into(), number, node: node_of(number) };
        Ok((is_read_only(&answer) && table_in(&answer).as_ref() == Some(target)).then_some(mapped))
    }

    fn load(&self, name: &str, target: &Target) -> io::Result<()> {
        self.command(DM_TABLE_LOAD, &mut request(name, DM_READONLY_FLAG, Some(target))?)?;
        // Suspending without the suspend flag is resuming: the loaded table becomes the live one.
        self.command(DM_DEV_SUSPEND, &mut request(name, DM_READONLY_FLAG, None)?)
    }

    fn command(&self, command: u8, request: &mut [u8]) -> io::Result<()> {
        ioctl::device_mapper(self.0.as_fd(), command, request)
    }
}

/// `struct dm_ioctl`, and `struct dm_target_spec` with its parameters where there is a target. `data_size` is set
/// where the buffer meets the kernel.
fn request(name: &str, flags: u32, target: Option<&Target>) -> io::Result<Vec<u8>> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(['\0', '/']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut buffer = Vec::with_capacity(512);
    for word in [4_u32, 0, 0] {
        buffer.extend(word.to_ne_bytes());
    }
    for word in [0, DM_HEADER as u32, u32::from(target.is_some()), 0, flags, 0, 0] {
        buffer.extend(word.to_ne_bytes());
    }
    buffer.extend(0_u64.to_ne_bytes());
    buffer.extend(name.as_bytes());
    buffer.resize(DM_HEADER, 0);
    if let Some(target) = target {
        buffer.extend(0_u64.to_ne_bytes());
        buffer.extend(target.sectors.to_ne_bytes());
        buffer.extend([0; 8]);
        buffer.extend(target.kind.as_bytes());
        buffer.resize(DM_HEADER + TARGET_SPEC, 0);
        buffer.extend(target.parameters.as_bytes());
        buffer.push(0);
        buffer.resize(buffer.len().next_multiple_of(8), 0);
    }
    Ok(buffer)
}

/// The field `dev` of an answer, in the kernel's `huge_encode_dev` form.
fn number_in(answer: &[u8]) -> io::Result<Number> {
    let field = answer.get(40..48).and_then(|bytes| bytes.try_into().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let dev = u64::from_ne_bytes(field);
    let major = (dev >> 8) & 0xfff;
    let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
    let narrow = |value: u64| u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData);
    Ok(Number { major: narrow(major)?, minor: narrow(minor)? })
}

fn node_of(number: Number) -> PathBuf {
    PathBuf::from(format!("/dev/dm-{}", number.minor))
}

/// A word of the header of an answer.
fn word_in(answer: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(answer.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn is_read_only(answer: &[u8]) -> bool {
    word_in(answer, 28).is_some_and(|flags| flags & DM_READONLY_FLAG != 0)
}

/// The only target of the table in an answer; `None` where there are none, several, or one of another kind.
fn table_in(answer: &[u8]) -> Option<Target> {
    // `target_count`, after `version`, `data_size` and `data_start`.
    if word_in(answer, 20)? != 1 {
        return None;
    }
    let start = usize::try_from(word_in(answer, 16)?).ok()?;
    let spec = answer.get(start..)?;
    let (first, sectors) = (spec.get(..8)?, spec.get(8..16)?);
    let text = |bytes: &[u8]| Some(std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?.to_owned());
    let kind = text(spec.get(24..TARGET_SPEC)?)?;
    if first.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(Target {
        sectors: u64::from_ne_bytes(sectors.try_into().ok()?),
        kind: KINDS.into_iter().find(|known| *known == kind)?,
        parameters: text(spec.get(TARGET_SPEC..)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIUM: Number = Number { major: 254, minor: 0 };
    const SLICE: Number = Number { major: 253, minor: 300 };

    #[test]
    fn a_slice_is_a_linear_table_in_sectors() {
        let target = Target::slice(MEDIUM, 1 << 20, 8192);
        assert_eq!((target.sectors, target.kind, target.parameters.as_str()), (16, "linear", "254:0 2048"));
    }

    #[test]
    fn a_verity_table_has_the_kernels_ten_fields() {
        let root = Digest::of(b"");
        let target = Target::verity(SLICE, 5 * 4096, MEDIUM, 7 * 4096, &root);
        assert_eq!((target.sectors, target.kind), (40, "verity"));
        assert_eq!(target.parameters, format!("1 253:300 254:0 4096 4096 5 7 sha256 {} -", root.to_hex()));
    }

    #[test]
    fn a_request_has_the_layout_of_the_kernels_header() {
        let bytes = request("gap-x", DM_READONLY_FLAG, None).unwrap();
        assert_eq!(bytes.len(), DM_HEADER);
        assert_eq!(bytes[0..4], 4_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 0_u32.to_ne_bytes());
        assert_eq!(bytes[28..32], 1_u32.to_ne_bytes());
        assert_eq!(&bytes[48..54], b"gap-x\0");
    }

    #[test]
    fn a_target_follows_the_header_with_its_parameters() {
        let target = Target::slice(MEDIUM, 0, 8192);
        let bytes = request("gap-x", 0, Some(&target)).unwrap();
        assert_eq!(bytes[20..24], 1_u32.to_ne_bytes());
        assert_eq!(bytes[312..320], 0_u64.to_ne_bytes());
        assert_eq!(bytes[320..328], 16_u64.to_ne_bytes());
        assert_eq!(&bytes[336..343], b"linear\0");
        assert_eq!(&bytes[352..360], b"254:0 0\0");
        assert_eq!(bytes.len() % 8, 0);
    }

    #[test]
    fn the_table_in_an_answer_is_the_target_that_was_loaded() {
        let target = Target::verity(SLICE, 8192, MEDIUM, 4096, &Digest::of(b"x"));
        let answer = request("gap-x", DM_READONLY_FLAG, Some(&target)).unwrap();
        assert!(is_read_only(&answer));
        assert_eq!(table_in(&answer), Some(target.clone()));
        assert_ne!(table_in(&answer), Some(Target::slice(MEDIUM, 4096, 8192)));
        assert_eq!(table_in(&request("gap-x", 0, None).unwrap()), None);
        assert_eq!(table_in(&answer[..DM_HEADER + 10]), None);
    }

    #[test]
    fn a_minor_number_beyond_eight_bits_is_decoded() {
        let mut answer = vec![0; DM_HEADER];
        // huge_encode_dev(253:300): low byte of the minor, major, rest of the minor.
        answer[40..48].copy_from_slice(&(0x2c_u64 | (253 << 8) | (0x100 << 12)).to_ne_bytes());
        assert_eq!(number_in(&answer).unwrap(), SLICE);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(request(&"x".repeat(128), 0, None).is_err());
        assert!(request("a/b", 0, None).is_err());
    }
}
