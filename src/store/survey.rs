//! What lies in a store: every file that may be collected, and whether a root leads to it.

use super::{
    error::StoreError,
    record::read_record,
    roots::{self, Roots},
};
use gap_format::Digest;
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Caches whose files come and go one by one; of the others each directory is one thing.
const FILE_BY_FILE: [&str; 2] = ["indexes", "downloads"];

/// What something in a store is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A fetched source.
    Source,
    /// A built blob.
    Blob,
    /// The record of a layer.
    Record,
    /// A cache of this name, or a file in one.
    Cache(String),
    /// What a build registered.
    Root,
    /// A file that builds lock while they make something.
    Lock,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("sources"),
            Self::Blob => f.write_str("blobs"),
            Self::Record => f.write_str("records"),
            Self::Cache(name) => write!(f, "caches/{name}"),
            Self::Root => f.write_str("roots"),
            Self::Lock => f.write_str("locks"),
        }
    }
}

/// Something that lies in a store.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub kind: Kind,
    pub path: PathBuf,
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// Whether a root leads to it.
    pub reachable: bool,
}

/// How much there is of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files, or directories where those are one thing.
    pub count: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that roots lead to.
    pub reachable: u64,
}

/// How much there is in the store in `dir`, by kind; nothing if there is no store. `roots` tells what is still wanted.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be read.
pub fn usage(dir: &Path, roots: &Roots) -> Result<BTreeMap<Kind, Amount>, StoreError> {
    let mut usage: BTreeMap<Kind, Amount> = BTreeMap::new();
    for entry in survey(dir, roots, |_| false)? {
        let amount = usage.entry(entry.kind).or_default();
        amount.count += 1;
        amount.bytes += entry.size;
        amount.reachable += if entry.reachable { entry.size } else { 0 };
    }
    Ok(usage)
}

/// All that lies in the store. `roots` lead to what they name, and a record to its blob, if it is reachable itself or
/// `holds` it.
pub(super) fn survey(dir: &Path, roots: &Roots, holds: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, StoreError> {
    let mut wanted = roots.digests.clone();
    let mut all = files(&dir.join("records"))?;
    for record in &mut all {
        record.kind = Kind::Record;
        let content = File::open(&record.path).and_then(|file| read_record(&file)).unwrap_or_default();
        let key = digest_of(record.path.file_stem());
        record.reachable = content.is_some() && key.is_some_and(|key| roots.layers.contains(&key.into()));
        if record.reachable || holds(record) {
            wanted.extend(content.map(|content| content.digest));
        }
    }
    for (area, kind) in [("sources", Kind::Source), ("blobs", Kind::Blob)] {
        for shard in list(&dir.join(area).join("sha256"))? {
            for content in files(&shard)? {
                let digest = digest_of(content.path.file_name());
                let reachable = digest.is_some_and(|digest| wanted.contains(&digest));
                all.push(Entry { kind: kind.clone(), reachable, ..content });
            }
        }
    }
    all.extend(caches(dir, roots)?);
    for root in files(&dir.join(roots::DIR))? {
        all.push(Entry { kind: Kind::Root, reachable: roots::read(&root.path).is_some(), ..root });
    }
    all.extend(files(&dir.join("locks"))?);
    Ok(all)
}

fn caches(dir: &Path, roots: &Roots) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    for cache in list(&dir.join("caches"))? {
        let name = cache.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = Kind::Cache(name.clone());
        for path in list(&cache)? {
            if FILE_BY_FILE.contains(&name.as_str()) {
                found.extend(files(&path)?.into_iter().map(|file| Entry { kind: kind.clone(), ..file }));
                continue;
            }
            let reachable = digest_of(path.file_name()).is_some_and(|key| roots.caches.contains(&key));
            let size = size_below(&path)?;
            found.push(Entry { kind: kind.clone(), size, reachable, ..entry(path)? });
        }
    }
    Ok(found)
}

fn digest_of(name: Option<&std::ffi::OsStr>) -> Option<Digest> {
    name.and_then(|name| name.to_str()).and_then(|hex| Digest::from_hex(hex).ok())
}

/// The files of a directory.
pub(super) fn files(dir: &Path) -> Result<Vec<Entry>, StoreError> {
    list(dir)?.into_iter().map(entry).collect()
}

fn entry(path: PathBuf) -> Result<Entry, StoreError> {
    let meta = metadata(&path)?;
    let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Entry { kind: Kind::Lock, path, size: meta.len(), used, reachable: false })
}

fn metadata(path: &Path) -> Result<Metadata, StoreError> {
    fs::symlink_metadata(path).map_err(StoreError::io("looking at", path))
}

/// What a directory holds, sorted; nothing if it is not there.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("listing", dir)(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(StoreError::io("listing", dir))?;
    paths.sort();
    Ok(paths)
}

fn size_below(root: &Path) -> Result<u64, StoreError> {
    let mut size = 0;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for path in list(&dir)? {
            let meta = metadata(&path)?;
            size += meta.len();
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(size)
}
