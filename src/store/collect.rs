//! Collecting garbage: what nothing refers to and nobody used for a while.

use super::{
    LayerKey,
    error::StoreError,
    record::read_record,
    session::{Session, lock_file},
};
use gap_format::Digest;
use rustix::fs::FlockOperation;
use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What must stay.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Sources and blobs by digest: those of the locks that are still wanted.
    pub digests: BTreeSet<Digest>,
    /// Layers by key.
    pub layers: BTreeSet<LayerKey>,
}

/// How much to collect.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// What was used at this time or later stays.
    pub used_since: SystemTime,
    /// Stop as soon as the store is no larger than this; least recently used goes first. Without it, everything goes
    /// that may.
    pub down_to: Option<u64>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// One thing that was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Where it is, below the directory of the store.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// What went, least recently used first.
    pub removed: Vec<Removed>,
    /// Bytes in all that went.
    pub freed: u64,
    /// Bytes in all that stayed.
    pub kept: u64,
}

/// How large the parts of a store are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fetched sources: files and bytes.
    pub sources: (u64, u64),
    /// Built blobs: files and bytes.
    pub blobs: (u64, u64),
    /// Records of layers: files and bytes.
    pub records: (u64, u64),
    /// Caches: directories and bytes.
    pub caches: (u64, u64),
}

/// Something that may be removed.
struct Candidate {
    path: PathBuf,
    size: u64,
    used: SystemTime,
    keep: bool,
}

/// Removes from the store in `dir` what neither `roots` nor the policy keeps.
///
/// # Errors
/// [`StoreError::InUse`] while another process has the store open; [`StoreError::Io`] if something cannot be removed.
pub fn collect(dir: &Path, roots: &Roots, policy: &Policy) -> Result<Collected, StoreError> {
    let Some(_alone) = lock_alone(dir)? else { return Ok(Collected::default()) };
    if !policy.dry_run {
        // A session of its own sweeps away what killed processes left.
        drop(Session::start(&dir.join("tmp"))?);
    }
    let mut candidates = candidates(dir, roots, policy)?;
    // Oldest first; the path makes the order of equals certain.
    candidates.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut total: u64 = candidates.iter().map(|candidate| candidate.size).sum();
    let mut collected = Collected::default();
    for candidate in candidates {
        if candidate.keep || policy.down_to.is_some_and(|limit| total <= limit) {
            collected.kept += candidate.size;
            continue;
        }
        if !policy.dry_run {
            remove(&candidate.path)?;
        }
        total -= candidate.size;
        collected.freed += candidate.size;
        let path = candidate.path.strip_prefix(dir).map(Path::to_owned).unwrap_or(candidate.path);
        collected.removed.push(Removed { path, size: candidate.size });
    }
    Ok(collected)
}

/// How large the store in `dir` is; all zero if there is none.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be read.
pub fn usage(dir: &Path) -> Result<Usage, StoreError> {
    let sum = |candidates: Vec<Candidate>| {
        (candidates.len() as u64, candidates.iter().map(|candidate| candidate.size).sum::<u64>())
    };
    Ok(Usage {
        sources: sum(contents(&dir.join("sources"))?.into_iter().map(|(_, candidate)| candidate).collect()),
        blobs: sum(contents(&dir.join("blobs"))?.into_iter().map(|(_, candidate)| candidate).collect()),
        records: sum(files(&dir.join("records"))?),
        caches: sum(caches(dir)?),
    })
}

/// The exclusive lock on the store; `None` if there is no store.
fn lock_alone(dir: &Path) -> Result<Option<File>, StoreError> {
    if !dir.join("tmp").is_dir() {
        return Ok(None);
    }
    match lock_file(&dir.join("lock"), FlockOperation::NonBlockingLockExclusive) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
            Err(StoreError::InUse { path: dir.to_owned() })
        }
        other => other.map(Some),
    }
}

fn candidates(dir: &Path, roots: &Roots, policy: &Policy) -> Result<Vec<Candidate>, StoreError> {
    let mut all = Vec::new();
    let mut wanted = roots.digests.clone();
    for mut record in files(&dir.join("records"))? {
        let key = record.path.file_stem().and_then(|stem| stem.to_str()).and_then(|hex| Digest::from_hex(hex).ok());
        let content = File::open(&record.path).and_then(|file| read_record(&file)).unwrap_or_default();
        record.keep = content.is_some()
            && (record.used >= policy.used_since || key.is_some_and(|key| roots.layers.contains(&key.into())));
        if record.keep {
            wanted.extend(content.map(|content| content.digest));
        }
        all.push(record);
    }
    for area in ["sources", "blobs"] {
        for (digest, mut content) in contents(&dir.join(area))? {
            content.keep = content.used >= policy.used_since || digest.is_some_and(|digest| wanted.contains(&digest));
            all.push(content);
        }
    }
    for mut cache in caches(dir)? {
        cache.keep = cache.used >= policy.used_since;
        all.push(cache);
    }
    // Nobody builds while the store is held alone, so locks are of no use now.
    for mut lock in files(&dir.join("locks"))? {
        lock.keep = lock.used >= policy.used_since;
        all.push(lock);
    }
    Ok(all)
}

/// The files of one area; the digest is that of the name, `None` if something else lies there.
fn contents(area: &Path) -> Result<Vec<(Option<Digest>, Candidate)>, StoreError> {
    let mut found = Vec::new();
    for shard in list(&area.join("sha256"))? {
        for file in files(&shard)? {
            let name = file.path.file_name().and_then(|name| name.to_str());
            found.push((name.and_then(|hex| Digest::from_hex(hex).ok()), file));
        }
    }
    Ok(found)
}

fn caches(dir: &Path) -> Result<Vec<Candidate>, StoreError> {
    let mut found = Vec::new();
    for name in list(&dir.join("caches"))? {
        for path in list(&name)? {
            let meta = fs::symlink_metadata(&path).map_err(StoreError::io("looking at", &path))?;
            found.push(Candidate { size: size_below(&path)?, ..candidate(path, &meta) });
        }
    }
    Ok(found)
}

fn files(dir: &Path) -> Result<Vec<Candidate>, StoreError> {
    let mut found = Vec::new();
    for path in list(dir)? {
        let meta = fs::symlink_metadata(&path).map_err(StoreError::io("looking at", &path))?;
        found.push(candidate(path, &meta));
    }
    Ok(found)
}

fn candidate(path: PathBuf, meta: &Metadata) -> Candidate {
    let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Candidate { path, size: meta.len(), used, keep: false }
}

/// What a directory holds, sorted; nothing if it is not there.
fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
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
            let meta = fs::symlink_metadata(&path).map_err(StoreError::io("looking at", &path))?;
            size += meta.len();
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(size)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let meta = fs::symlink_metadata(path).map_err(StoreError::io("looking at", path))?;
    let removed = if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(StoreError::io("removing", path))
}
