//! A wheel that was opened and is what its name, its own files and the lock say.

use super::{
    entry_points::{self, Program},
    error::WheelError,
    record::{self, Recorded},
};
use crate::source::wheels::{
    LockedWheel,
    archive::{Archive, Member},
    metadata::{self, Metadata, fields},
    name::WheelName,
    target::Target,
};
use pep508_rs::pep440_rs::Version;
use rawzip::ReaderAt;
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

/// Longest `WHEEL` read, in bytes.
const WHEEL_MAX: u64 = 1 << 20;
/// Files of a project's own directory that `RECORD` need not vouch for.
const UNRECORDED: [&str; 3] = ["RECORD", "RECORD.jws", "RECORD.p7s"];

/// An open wheel.
#[derive(Debug)]
pub struct Opened<R> {
    /// Its archive.
    pub archive: Archive<R>,
    /// `NAME-VERSION.dist-info`.
    pub info: String,
    /// What its `RECORD` says of each file.
    pub record: BTreeMap<String, Recorded>,
    /// Programs that it declares.
    pub programs: Vec<Program>,
}

/// Where a file of a wheel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'m> {
    /// Among the modules.
    Site(&'m str),
    /// Among the programs.
    Script(&'m str),
    /// Among the headers.
    Header(&'m str),
    /// Anywhere in the installation.
    Data(&'m str),
    /// Nowhere.
    Dropped,
}

impl<R: ReaderAt> Opened<R> {
    /// Opens a wheel of `len` bytes and checks it against the lock and the target.
    ///
    /// # Errors
    /// [`WheelError`].
    pub fn new(reader: R, len: u64, row: &LockedWheel, target: &Target) -> Result<Self, WheelError> {
        let archive = Archive::open(reader, len)?;
        archive.check_layout()?;
        let info = archive.dist_info()?.to_owned();
        check_wheel(&archive.read(&format!("{info}/WHEEL"), WHEEL_MAX)?, target)?;
        check_metadata(&archive.read(&format!("{info}/METADATA"), metadata::MAX_LEN)?, row)?;
        let record = record::parse(&archive.read(&format!("{info}/RECORD"), record::MAX_LEN)?)?;
        let declared = format!("{info}/entry_points.txt");
        let programs = match archive.member(&declared) {
            None => Vec::new(),
            Some(_) => entry_points::programs(&archive.read(&declared, entry_points::MAX_LEN)?)?,
        };
        let opened = Self { archive, info, record, programs };
        opened.check_record()?;
        Ok(opened)
    }

    /// Every file is in `RECORD` with a digest, and the reverse.
    fn check_record(&self) -> Result<(), WheelError> {
        let unrecorded = |path: &str, what| WheelError::Unrecorded { path: path.escape_debug().to_string(), what };
        let mut there = BTreeSet::new();
        for member in self.archive.members() {
            there.insert(member.path.as_str());
            let recorded = self.record.get(&member.path);
            match recorded {
                _ if self.is_unrecorded(&member.path) => {}
                None => return Err(unrecorded(&member.path, "is not in RECORD")),
                Some(Recorded { sha256: None, .. }) => return Err(unrecorded(&member.path, "has no digest in RECORD")),
                Some(Recorded { size: Some(size), .. }) if *size != member.size => {
                    return Err(WheelError::Changed(member.path.escape_debug().to_string()));
                }
                Some(_) => {}
            }
        }
        let is_missing = |path: &&String| !there.contains(path.as_str()) && !path.ends_with('/');
        match self.record.keys().find(is_missing) {
            Some(path) => Err(unrecorded(path, "is in RECORD and not in the wheel")),
            None => Ok(()),
        }
    }

    fn is_unrecorded(&self, path: &str) -> bool {
        let name = path.strip_prefix(&self.info).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| UNRECORDED.contains(&name))
    }

    /// Where a file of the wheel goes.
    pub(super) fn place<'m>(&self, member: &'m Member) -> Result<Place<'m>, WheelError> {
        let path = member.path.as_str();
        let part = || WheelError::Part(path.escape_debug().to_string());
        let info = path.strip_prefix(&self.info).and_then(|rest| rest.strip_prefix('/'));
        if let Some(name) = info {
            // What the installer writes itself.
            let own = UNRECORDED.contains(&name) || matches!(name, "INSTALLER" | "REQUESTED" | "direct_url.json");
            return Ok(if own { Place::Dropped } else { Place::Site(path) });
        }
        let stem = self.info.strip_suffix(".dist-info").unwrap_or(&self.info);
        let data = path.strip_prefix(stem).and_then(|rest| rest.strip_prefix(".data/"));
        let Some(data) = data else { return Ok(Place::Site(path)) };
        let (key, rest) = data.split_once('/').ok_or_else(part)?;
        match key {
            "purelib" | "platlib" => Ok(Place::Site(rest)),
            "scripts" if !rest.contains('/') => Ok(Place::Script(rest)),
            "headers" => Ok(Place::Header(rest)),
            "data" => Ok(Place::Data(rest)),
            _ => Err(part()),
        }
    }
}

fn check_wheel(data: &[u8], target: &Target) -> Result<(), WheelError> {
    let text = String::from_utf8_lossy(data);
    let fields = fields(&text);
    let all =
        |wanted: &'static str| fields.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let format = all("Wheel-Version").next().unwrap_or_default();
    if format.split('.').next() != Some("1") {
        return Err(WheelError::Format(format.escape_debug().to_string()));
    }
    let fits = |tag: &str| WheelName::from_str(&format!("x-0-{tag}.whl")).is_ok_and(|name| target.accepts(&name));
    if all("Tag").any(fits) {
        return Ok(());
    }
    let found = all("Tag").collect::<Vec<_>>().join(", ").escape_debug().to_string();
    Err(WheelError::OtherPlatform { found, target: *target })
}

fn check_metadata(data: &[u8], row: &LockedWheel) -> Result<(), WheelError> {
    let found = Metadata::parse(data)?;
    let differs = |what, found: String, locked: String| Err(WheelError::NotAsLocked { what, found, locked });
    if found.name != row.name {
        return differs("it is", found.name.to_string(), row.name.to_string());
    }
    if found.version != row.version && Version::from_str(&found.version).ok() != Version::from_str(&row.version).ok() {
        return differs("its version is", found.version.escape_debug().to_string(), row.version.clone());
    }
    if found.licenses != row.licenses {
        return differs("its licences are", found.licenses.join(", "), row.licenses.join(", "));
    }
    let needs: BTreeSet<String> = found.requires.iter().map(metadata::plain).collect();
    match row.requires.iter().find(|needed| !needs.contains(*needed)) {
        Some(missing) => differs("it does not need", missing.clone(), "that it does".to_owned()),
        None => Ok(()),
    }
}
