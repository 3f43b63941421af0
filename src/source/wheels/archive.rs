//! The zip archive of a wheel, read without trusting it.
//!
//! Readers of zip files disagree about odd ones, and what one shows another may not install. So only plain archives are
//! taken: nothing before, between or after the members, every name once and inside the tree, local headers that repeat
//! the directory's names, stored or deflated regular files.

use crate::layer::tree::{PathError, TreePath};
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipEntry, ZipLocator};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

/// Longest central directory record or local header, in bytes.
const BUFFER: usize = 256 << 10;
/// Members accepted in one archive; the largest wheels have about 30,000.
const MEMBERS_MAX: usize = 500_000;
/// Longest directory, in bytes; the largest wheels have some 5 MB.
const DIRECTORY_MAX: u64 = 32 << 20;
/// Bytes of names that are held to tell whether one is there twice, with those of the directories above them.
const NAMES_MAX: usize = 64 << 20;
/// Bytes that may come out of an archive however short it is.
const SMALL: u64 = 1 << 30;
/// How many times its own length an archive may unpack to beyond that.
const RATIO_MAX: u64 = 100;
/// Longest data descriptor, which may follow a member, in bytes.
const DESCRIPTOR: u64 = 24;
/// Bits of a zip's flags: the member is encrypted, its directory is.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not a zip archive, or a damaged one.
    #[error("it is no whole zip archive: {0}")]
    Zip(#[from] rawzip::Error),
    /// Reading failed; also: a member that is damaged.
    #[error("reading `{member}`: {source}")]
    Read {
        /// The member.
        member: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A name that cannot be a path in a tree.
    #[error("the member `{name}` {reason}")]
    Name {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The same name twice, or a file where a directory must be.
    #[error("the member `{0}` is there twice, or both as a file and as a directory")]
    Twice(String),
    /// A link, a device, an encrypted or otherwise compressed file.
    #[error("the member `{name}` {what}, which wheels may not have")]
    Kind {
        /// The name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The bytes of the archive are not all accounted for.
    #[error("the archive {0}: two programs could see different files in it")]
    Layout(&'static str),
    /// It unpacks to too much.
    #[error("it would unpack to {0} bytes, far more than a wheel of its length holds")]
    Bomb(u64),
    /// More members than any real wheel has.
    #[error("it has more than {MEMBERS_MAX} members")]
    TooMany,
    /// A longer directory than any real wheel has.
    #[error("its directory is {0} bytes long, far more than that of any wheel")]
    LongDirectory(u64),
    /// Names that lie so deep that they cannot be held.
    #[error("its members lie in more and deeper directories than those of any wheel")]
    Deep,
    /// A member that is needed is missing or too long.
    #[error("the member `{0}` is missing or too long")]
    NoMember(String),
}

/// A regular file in an archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its path, as the archive writes it: relative, with `/`.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// When it was last changed: seconds since 1970, the archive's local time taken as UTC; `None` where it says nothing
    /// possible.
    pub mtime: Option<i64>,
    deflated: bool,
    local: u64,
    place: ZipArchiveEntryWayfinder,
}

/// An archive whose directory was read and found plain.
#[derive(Debug)]
pub struct Archive<R> {
    zip: ZipArchive<R>,
    members: Vec<Member>,
    /// Directories that have an entry of their own: names as written, and where those are.
    folders: Vec<(String, u64, ZipArchiveEntryWayfinder)>,
    directory: u64,
}

impl<R: ReaderAt> Archive<R> {
    /// Reads the directory of an archive of `len` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(reader: R, len: u64) -> Result<Self, ArchiveError> {
        let mut buffer = vec![0; BUFFER];
        let zip = ZipLocator::new().locate_in_reader(reader, &mut buffer, len).map_err(|(_, error)| error)?;
        if zip.end_offset() != len {
            return Err(ArchiveError::Layout("has something after its end"));
        }
        let directory = zip.directory_offset();
        let length = len.saturating_sub(directory);
        if length > DIRECTORY_MAX {
            return Err(ArchiveError::LongDirectory(length));
        }
        let (mut members, mut folders) = (Vec::new(), Vec::new());
        let mut seen = Names::default();
        let mut total = 0_u64;
        let mut entries = zip.entries(&mut buffer);
        while let Some(entry) = entries.next_entry()? {
            if seen.count() >= MEMBERS_MAX {
                return Err(ArchiveError::TooMany);
            }
            let raw = entry.file_path();
            let (path, is_dir) = checked_path(raw.as_bytes())?;
            seen.add(&path, is_dir)?;
            let refuse = |what| ArchiveError::Kind { name: path.escape_debug().to_string(), what };
            if entry.flags().bits() & ENCRYPTED != 0 {
                return Err(refuse("is encrypted"));
            }
            let mode = entry.mode();
            let kind = mode.value() & 0o170_000;
            if is_dir {
                folders.push((format!("{path}/"), entry.local_header_offset(), entry.wayfinder()));
                continue;
            }
            if kind != 0o100_000 {
                return Err(refuse("is a link, a device or a directory with contents"));
            }
            let deflated = match entry.compression_method() {
                CompressionMethod::STORE => false,
                CompressionMethod::DEFLATE => true,
                _ => return Err(refuse("is neither stored nor deflated")),
            };
            let size = entry.uncompressed_size_hint();
            total = total.saturating_add(size);
            // What a file system of another kind notes as permission says nothing.
            let from_unix = entry.version_made_by().creator_system() == rawzip::CreatorSystem::UNIX;
            members.push(Member {
                path,
                size,
                executable: from_unix && mode.permissions() & 0o111 != 0,
                mtime: mtime(&entry.last_modified_dos()),
                deflated,
                local: entry.local_header_offset(),
                place: entry.wayfinder(),
            });
        }
        if total > SMALL.max(len.saturating_mul(RATIO_MAX)) {
            return Err(ArchiveError::Bomb(total));
        }
        Ok(Self { zip, members, folders, directory })
    }

    /// The regular files, in the order of the directory.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// What the members come to, in bytes.
    pub fn unpacked_size(&self) -> u64 {
        self.members.iter().map(|member| member.size).sum()
    }

    /// The member of this path.
    pub fn member(&self, path: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.path == path)
    }

    /// Checks that the members fill the archive up to its directory and that their own headers name them alike.
    ///
    /// # Errors
    /// [`ArchiveError::Layout`].
    pub fn check_layout(&self) -> Result<(), ArchiveError> {
        let mut ranges = Vec::with_capacity(self.members.len());
        let mut buffer = vec![0; BUFFER];
        let members = self.members.iter().map(|member| (&member.path, member.local, member.place));
        let folders = self.folders.iter().map(|(path, local, place)| (path, *local, *place));
        for (path, local, place) in members.chain(folders) {
            let entry = self.zip.get_entry(place)?;
            let header = entry.local_header(&mut buffer)?;
            if header.file_path().as_bytes() != path.as_bytes() {
                return Err(ArchiveError::Layout("gives a member two names"));
            }
            ranges.push((local, entry.compressed_data_range().1));
        }
        ranges.sort_unstable();
        let starts = ranges.iter().map(|&(start, _)| start).chain([self.directory]);
        let ends = std::iter::once(0).chain(ranges.iter().map(|&(_, end)| end));
        for (number, (end, start)) in ends.zip(starts).enumerate() {
            let descriptor = if number == 0 { 0 } else { DESCRIPTOR };
            match start.checked_sub(end) {
                None => return Err(ArchiveError::Layout("has members that overlap")),
                Some(gap) if gap > descriptor => return Err(ArchiveError::Layout("has bytes that are in no member")),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Reads a member whose length and checksum are compared at its end.
    ///
    /// # Errors
    /// [`ArchiveError::Zip`] if its header cannot be read.
    pub fn reader(&self, member: &Member) -> Result<impl Read, ArchiveError> {
        let entry = self.zip.get_entry(member.place)?;
        let raw = inflated(&entry, member);
        Ok(entry.verifying_reader(raw).take(member.size.saturating_add(1)))
    }

    /// Reads a member with neither length nor checksum compared, for who knows both better. At most one byte more than its
    /// length comes.
    ///
    /// # Errors
    /// [`ArchiveError::Zip`] if its header cannot be read.
    pub fn unchecked_reader(&self, member: &Member) -> Result<impl Read, ArchiveError> {
        let entry = self.zip.get_entry(member.place)?;
        Ok(inflated(&entry, member).take(member.size.saturating_add(1)))
    }

    /// Reads a whole member of at most `max` bytes.
    ///
    /// # Errors
    /// [`ArchiveError::NoMember`] if there is none, [`ArchiveError::Read`] if it is damaged.
    pub fn read(&self, path: &str, max: u64) -> Result<Vec<u8>, ArchiveError> {
        let member = self.member(path).filter(|member| member.size <= max);
        let member = member.ok_or_else(|| ArchiveError::NoMember(path.escape_debug().to_string()))?;
        let mut data = Vec::new();
        self.reader(member)?
            .read_to_end(&mut data)
            .map_err(|source| ArchiveError::Read { member: member.path.clone(), source })?;
        Ok(data)
    }

    /// The name of the one directory `NAME-VERSION.dist-info` at the top.
    ///
    /// # Errors
    /// [`ArchiveError::NoMember`] if there is none or more than one.
    pub fn dist_info(&self) -> Result<&str, ArchiveError> {
        let tops = self.members.iter().filter_map(|member| member.path.split_once('/')).map(|(top, _)| top);
        let found: BTreeSet<&str> = tops.filter(|top| top.ends_with(".dist-info")).collect();
        match found.into_iter().collect::<Vec<_>>().as_slice() {
            [one] => Ok(one),
            _ => Err(ArchiveError::NoMember("NAME-VERSION.dist-info".to_owned())),
        }
    }
}

/// What a member's bytes stand for.
fn inflated<'a, R: ReaderAt>(entry: &ZipEntry<'a, R>, member: &Member) -> Box<dyn Read + 'a> {
    match member.deflated {
        true => Box::new(DeflateDecoder::new(entry.reader())),
        false => Box::new(entry.reader()),
    }
}

/// Every name so far, and whether it stands for a directory.
#[derive(Default)]
struct Names {
    kinds: BTreeMap<String, bool>,
    listed: BTreeSet<String>,
    /// Bytes of the names of directories.
    held: usize,
}

impl Names {
    fn count(&self) -> usize {
        self.listed.len()
    }

    fn add(&mut self, path: &str, is_dir: bool) -> Result<(), ArchiveError> {
        let twice = || ArchiveError::Twice(path.escape_debug().to_string());
        if !self.listed.insert(path.to_owned()) {
            return Err(twice());
        }
        for (at, _) in path.match_indices('/') {
            let above = path.get(..at).unwrap_or_default();
            if self.kinds.get(above) == Some(&false) {
                return Err(twice());
            }
            if !self.kinds.contains_key(above) {
                self.held += above.len();
                if self.held > NAMES_MAX {
                    return Err(ArchiveError::Deep);
                }
                self.kinds.insert(above.to_owned(), true);
            }
        }
        match self.kinds.insert(path.to_owned(), is_dir) {
            Some(before) if before != is_dir => Err(twice()),
            _ => Ok(()),
        }
    }
}

/// The path of a member if it is relative and has one spelling, without the slash that marks a directory, and whether it
/// had that.
fn checked_path(raw: &[u8]) -> Result<(String, bool), ArchiveError> {
    let bad = |reason: &str| ArchiveError::Name { name: raw.escape_ascii().to_string(), reason: reason.to_owned() };
    let text = std::str::from_utf8(raw).map_err(|_| bad("has a name that is not UTF-8"))?;
    let (path, is_dir) = text.strip_suffix('/').map_or((text, false), |path| (path, true));
    if path.starts_with('/') || path.contains('\\') {
        return Err(bad("has an absolute name, or one of another system"));
    }
    if path.chars().any(char::is_control) {
        return Err(bad("has control characters in its name"));
    }
    match TreePath::new(path) {
        Ok(normal) if !normal.is_root() && normal.as_bytes() == path.as_bytes() => Ok((path.to_owned(), is_dir)),
        Ok(_) => Err(bad("has a name with empty parts or dots")),
        Err(PathError::Climbs) => Err(bad("climbs out of the wheel")),
        Err(error) => Err(bad(&error.to_string())),
    }
}

fn mtime(time: &rawzip::time::DosDateTime) -> Option<i64> {
    let part = |value: u8| i8::try_from(value).ok();
    let date = jiff::civil::DateTime::new(
        i16::try_from(time.year()).ok()?,
        part(time.month())?,
        part(time.day())?,
        part(time.hour())?,
        part(time.minute())?,
        part(time.second())?,
        0,
    );
    Some(date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_directory_longer_than_any_is_refused_before_it_is_read() {
        let length: u32 = 33 << 20;
        let mut file = vec![0; length as usize];
        file.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        file.extend_from_slice(&[length.to_le_bytes(), [0; 4]].concat());
        file.extend_from_slice(&[0; 2]);
        let len = file.len() as u64;
        assert!(matches!(Archive::open(file, len), Err(ArchiveError::LongDirectory(found)) if found == len));
    }

    #[test]
    fn names_of_thousands_of_directories_each_are_refused_before_they_fill_the_memory() {
        let archive = |count: usize| {
            let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
            for number in 0..count {
                let path = format!("{number}{}", "/a".repeat(2000));
                zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(b"x").unwrap();
            }
            zip.finish().unwrap().into_inner()
        };
        let open = |file: Vec<u8>| {
            let len = file.len() as u64;
            Archive::open(file, len).map(|archive| archive.members().len())
        };
        assert_eq!(open(archive(3)).unwrap(), 3);
        assert!(matches!(open(archive(20)), Err(ArchiveError::Deep)));
    }
}
