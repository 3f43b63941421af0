//! Roots: what builds registered, so that their inputs and layers outlive their age.
//!
//! Every build notes under the path of its lock what it is made of. A root holds as long as that lock exists and was built
//! from lately; the next build of the same lock replaces it.

use super::{KeyBuilder, LayerKey, Store, error::StoreError, notes::write_small, temp::touch};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The directory of registered roots.
pub(super) const DIR: &str = "roots";
/// Longest root that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// What must stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// Sources and blobs by digest: those of the locks that are still wanted.
    pub digests: BTreeSet<Digest>,
    /// Layers by key.
    pub layers: BTreeSet<LayerKey>,
    /// Caches by key.
    pub caches: BTreeSet<Digest>,
}

impl Roots {
    /// Adds what another build needs.
    pub fn add(&mut self, other: Self) {
        self.digests.extend(other.digests);
        self.layers.extend(other.layers);
        self.caches.extend(other.caches);
    }
}

/// What the build of one lock registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The lock, absolute.
    pub lock: PathBuf,
    /// What the build is made of.
    pub roots: Roots,
}

impl Store {
    /// Registers what the build of `lock` is made of; it replaces what an earlier build of that lock registered. A path
    /// that is not UTF-8 cannot be noted: what is built from it stays by its age only.
    ///
    /// # Errors
    /// [`StoreError`] if the path cannot be made absolute, or the store cannot be written.
    pub fn register(&self, lock: &Path, roots: Roots) -> Result<(), StoreError> {
        let lock = std::path::absolute(lock).map_err(StoreError::io("finding the directory of", lock))?;
        let Some(text) = lock.to_str() else { return Ok(()) };
        let name = KeyBuilder::new("root", 1).text("lock", text).finish().to_hex();
        let path = self.dir().join(DIR).join(format!("{name}.json"));
        let failed = |error: serde_json::Error| StoreError::io("noting", &lock)(error.into());
        let text = serde_json::to_vec(&Registered { lock: lock.clone(), roots }).map_err(failed)?;
        // A build that changes nothing need not wait for the disk.
        if fs::read(&path).is_ok_and(|old| old == text)
            && let Ok(file) = File::open(&path)
        {
            touch(&file);
            return Ok(());
        }
        write_small(self, &path, &text)
    }
}

/// The roots registered in the store in `dir`, last built from at `since` or later, whose locks still exist. Damaged ones
/// count as none.
///
/// # Errors
/// [`StoreError::Io`] if they cannot be listed.
pub fn registered(dir: &Path, since: SystemTime) -> Result<Vec<Registered>, StoreError> {
    let files = super::survey::files(&dir.join(DIR))?;
    Ok(files.into_iter().filter(|file| file.used >= since).filter_map(|file| read(&file.path)).collect())
}

/// A root that still holds.
pub(super) fn read(path: &Path) -> Option<Registered> {
    if fs::metadata(path).ok()?.len() > MAX_LEN {
        return None;
    }
    let registered: Registered = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    registered.lock.exists().then_some(registered)
}
