//! Collecting garbage: what nothing leads to and nobody used for a while.

use super::{
    error::StoreError,
    roots::Roots,
    session::{Session, lock_file},
    survey::{Entry, Kind, survey},
};
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How much to collect.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// What was used at this time or later stays.
    pub used_since: SystemTime,
    /// The same for package indexes, which are large and soon superseded; `used_since` if that is later.
    pub indexes_used_since: SystemTime,
    /// What builds registered at this time or later holds.
    pub registered_since: SystemTime,
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

impl Policy {
    /// Whether something stays, because a root leads to it or because it was used lately.
    fn keeps(&self, entry: &Entry) -> bool {
        let led_to = match entry.kind {
            Kind::Root => entry.reachable && entry.used >= self.registered_since,
            _ => entry.reachable,
        };
        led_to || self.is_recent(entry)
    }

    /// Whether something was used lately.
    fn is_recent(&self, entry: &Entry) -> bool {
        let since = match &entry.kind {
            Kind::Cache(name) if name == "indexes" => self.used_since.max(self.indexes_used_since),
            _ => self.used_since,
        };
        entry.used >= since
    }
}

/// Removes from the store in `dir` what neither `roots` nor the policy keeps. While it does, nobody can open the store;
/// while somebody has it open, nothing is removed.
///
/// # Errors
/// [`StoreError::InUse`] while another process has the store open; [`StoreError::Io`] if something cannot be removed.
pub fn collect(dir: &Path, roots: &Roots, policy: &Policy) -> Result<Collected, StoreError> {
    if !dir.join("tmp").is_dir() {
        return Ok(Collected::default());
    }
    // Looking does not disturb those who build.
    let _alone = if policy.dry_run { None } else { Some(lock_alone(dir)?) };
    if !policy.dry_run {
        // A session of its own sweeps away what killed processes left.
        drop(Session::start(&dir.join("tmp"))?);
    }
    let mut entries = survey(dir, roots, |entry| policy.is_recent(entry))?;
    // Oldest first; the path makes the order of equals certain.
    entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut collected = Collected::default();
    for entry in entries {
        if policy.keeps(&entry) || policy.down_to.is_some_and(|limit| total <= limit) {
            collected.kept += entry.size;
            continue;
        }
        if !policy.dry_run {
            remove(&entry.path)?;
        }
        total -= entry.size;
        collected.freed += entry.size;
        let path = entry.path.strip_prefix(dir).map(Path::to_owned).unwrap_or(entry.path);
        collected.removed.push(Removed { path, size: entry.size });
    }
    Ok(collected)
}

/// The exclusive lock on the store.
fn lock_alone(dir: &Path) -> Result<File, StoreError> {
    match lock_file(&dir.join("lock"), FlockOperation::NonBlockingLockExclusive) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
            Err(StoreError::InUse { path: dir.to_owned() })
        }
        other => other,
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let meta = fs::symlink_metadata(path).map_err(StoreError::io("looking at", path))?;
    let removed = if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(StoreError::io("removing", path))
}
